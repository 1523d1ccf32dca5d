// Registers the ops for CUDA tensors.
#include <ATen/Functions.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "../ops/kl_div.h"
#include "kl_div.h"
#include "scale.h"

namespace {

void run_kl_div(const detkd::KlDivProblem& p, const at::Tensor& student) {
  at::Tensor values;
  if (p.reduced) values = at::empty({p.outer.count * p.inner}, student.options().dtype(at::kFloat));
  C10_CUDA_CHECK(detkd::launch_kl_div(p, p.reduced ? values.mutable_data_ptr<float>() : nullptr,
                                      c10::cuda::getCurrentCUDAStream()));
}

std::tuple<at::Tensor, at::Tensor> kl_div(const at::Tensor& student, const at::Tensor& teacher, int64_t dim,
                                          double temperature, const std::optional<at::Tensor>& weight,
                                          c10::string_view reduction, bool with_gradient) {
  const c10::cuda::CUDAGuard guard(student.device());
  return detkd::call_kl_div(student, teacher, dim, temperature, weight, reduction, with_gradient, &run_kl_div);
}

void scale(at::Tensor gradient, const at::Tensor& factor) {
  const c10::cuda::CUDAGuard guard(gradient.device());
  if (gradient.numel() == 0) return;
  TORCH_CHECK(gradient.is_non_overlapping_and_dense(), "scale_: expected a gradient without gaps");
  C10_CUDA_CHECK(detkd::launch_scale(detkd::scalar_type_of(gradient), gradient.mutable_data_ptr(), gradient.numel(),
                                     factor.const_data_ptr<float>(), c10::cuda::getCurrentCUDAStream()));
}

}  // namespace

TORCH_LIBRARY_IMPL(detkd, CUDA, m) {
  m.impl("kl_div", &kl_div);
  m.impl("scale_", &scale);
}
