// Python module detkd._C: importing it registers the ops; it also says how it was built.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/version.h>

#include "cpu/kernels.h"

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

const char* cpu_capability() { return detkd::kernels().name; }

std::vector<std::string> cpu_capabilities() {
  std::vector<std::string> names;
  for (const detkd::Kernels* table :
       {detkd::avx512_kernels(), detkd::avx2_kernels(), detkd::portable_kernels()}) {
    if (table != nullptr) names.push_back(table->name);
  }
  return names;
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  module.doc() = "Compiled ops of detkd.";
  module.def("build_info", &build_info, "How this extension was built.");
  module.def("cpu_capabilities", &cpu_capabilities, "Instruction sets that this processor can run, widest first.");
  module.def("cpu_capability", &cpu_capability, "Instruction set of the CPU kernels: avx512, avx2 or portable.");
}
