// Registers the ops for CUDA tensors.
#include <ATen/Functions.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "../ops/binary_kl.h"
#include "../ops/feature_maps.h"
#include "../ops/kl_div.h"
#include "attention_mse.h"
#include "attention_transfer.h"
#include "binary_kl.h"
#include "kl_div.h"
#include "scale.h"
#include "standardized_mse.h"

namespace {

// Launches with scratch that lives until the stream has passed it.
template <typename Problem>
auto launcher(const at::Tensor& student, int64_t (*room)(const Problem&),
              cudaError_t (*launch)(const Problem&, double*, cudaStream_t)) {
  return [&student, room, launch](const Problem& p) {
    const at::Tensor workspace = at::empty({room(p)}, student.options().dtype(at::kDouble));
    C10_CUDA_CHECK(launch(p, workspace.mutable_data_ptr<double>(), c10::cuda::getCurrentCUDAStream()));
  };
}

detkd::LossAndGradient kl_div(const at::Tensor& student, const at::Tensor& teacher, int64_t dim, double temperature,
                              const std::optional<at::Tensor>& weight, const std::optional<at::Tensor>& mask,
                              c10::string_view reduction, bool with_gradient) {
  const c10::cuda::CUDAGuard guard(student.device());
  return detkd::call_kl_div(student, teacher, dim, temperature, weight, mask, reduction, with_gradient,
                            launcher(student, &detkd::kl_div_workspace, &detkd::launch_kl_div));
}

detkd::LossAndGradient binary_kl(const at::Tensor& student, const at::Tensor& teacher, double temperature, double beta,
                                 c10::string_view kind, const std::optional<at::Tensor>& weight,
                                 c10::string_view reduction, bool with_gradient) {
  const c10::cuda::CUDAGuard guard(student.device());
  return detkd::call_binary_kl(student, teacher, temperature, beta, kind, weight, reduction, with_gradient,
                               launcher(student, &detkd::binary_kl_workspace, &detkd::launch_binary_kl));
}

detkd::LossAndGradient attention_transfer(const at::Tensor& student, const at::Tensor& teacher, double p,
                                          bool with_gradient) {
  const c10::cuda::CUDAGuard guard(student.device());
  return detkd::call_attention_transfer(
      student, teacher, p, with_gradient,
      launcher(student, &detkd::attention_transfer_workspace, &detkd::launch_attention_transfer));
}

detkd::LossAndGradient attention_mse(const at::Tensor& student, const at::Tensor& teacher,
                                     const std::optional<at::Tensor>& weight, double temperature,
                                     double attention_gain, bool with_gradient) {
  const c10::cuda::CUDAGuard guard(student.device());
  return detkd::call_attention_mse(student, teacher, weight, temperature, attention_gain, with_gradient,
                                   launcher(student, &detkd::attention_mse_workspace, &detkd::launch_attention_mse));
}

detkd::LossAndGradient standardized_mse(const at::Tensor& student, const at::Tensor& teacher, double eps,
                                        bool with_gradient) {
  const c10::cuda::CUDAGuard guard(student.device());
  return detkd::call_standardized_mse(
      student, teacher, eps, with_gradient,
      launcher(student, &detkd::standardized_mse_workspace, &detkd::launch_standardized_mse));
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
  m.impl("binary_kl", &binary_kl);
  m.impl("attention_transfer", &attention_transfer);
  m.impl("attention_mse", &attention_mse);
  m.impl("standardized_mse", &standardized_mse);
  m.impl("scale_", &scale);
}
