// Python module detkd._C: importing it registers the ops; it also says how it was built.
#include <pybind11/pybind11.h>
#include <torch/version.h>

#ifndef DETKD_CUDA_ARCHITECTURES
#define DETKD_CUDA_ARCHITECTURES ""
#endif

namespace py = pybind11;

namespace {

py::dict build_info() {
  py::dict info;
  info["torch"] = TORCH_VERSION;
  info["compiler"] = __VERSION__;
  // Architectures of the CUDA kernels; empty where there are none.
  info["cuda"] = DETKD_CUDA_ARCHITECTURES;
  return info;
}

const char* cpu_capability() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return "avx512";
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "avx2";
#endif
  return "portable";
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  module.doc() = "Compiled ops of detkd.";
  module.def("build_info", &build_info, "How this extension was built.");
  module.def("cpu_capability", &cpu_capability, "Widest instruction set of this processor that detkd knows.");
}
