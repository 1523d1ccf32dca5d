// Registers detkd::kl_div_rows for CUDA tensors.
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "../ops/kl_div.h"
#include "kl_div.h"

namespace {

detkd::ScalarType scalar_type_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return detkd::ScalarType::kFloat;
    case at::kHalf:
      return detkd::ScalarType::kHalf;
    case at::kBFloat16:
      return detkd::ScalarType::kBFloat16;
    default:
      TORCH_CHECK(false, "kl_div_rows: expected float32, float16 or bfloat16, but got ", tensor.scalar_type());
  }
}

std::tuple<at::Tensor, at::Tensor> kl_div_rows(const at::Tensor& student, const at::Tensor& teacher, int64_t dim,
                                               double temperature, bool with_gradient) {
  const c10::cuda::CUDAGuard guard(student.device());
  const auto call = detkd::prepare_kl_div(student, teacher, dim, with_gradient);
  if (call.student.numel() == 0) return {call.loss, call.gradient};
  C10_CUDA_CHECK(detkd::launch_kl_div(
      scalar_type_of(call.student), call.student.const_data_ptr(), call.teacher.const_data_ptr(), call.outer,
      call.classes, call.inner, static_cast<float>(temperature), call.loss.mutable_data_ptr<float>(),
      with_gradient ? call.gradient.mutable_data_ptr() : nullptr, c10::cuda::getCurrentCUDAStream()));
  return {call.loss, call.gradient};
}

}  // namespace

TORCH_LIBRARY_IMPL(detkd, CUDA, m) { m.impl("kl_div_rows", &kl_div_rows); }
