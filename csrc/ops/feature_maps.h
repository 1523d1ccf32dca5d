// What the CPU and the CUDA kernels of the three ops on feature maps [N, C, H, W] share: from tensors to a problem.
//
// Each call checks, lays student and teacher out as planes of neighbouring positions, copying where they are not, makes
// room for loss and gradient, and calls `run` unless there is nothing to compare.
#pragma once

#include <functional>
#include <optional>

#include "tensors.h"

namespace detkd {

LossAndGradient call_attention_transfer(const at::Tensor& student, const at::Tensor& teacher, double p,
                                        bool with_gradient,
                                        const std::function<void(const AttentionTransferProblem&)>& run);

LossAndGradient call_attention_mse(const at::Tensor& student, const at::Tensor& teacher,
                                   const std::optional<at::Tensor>& weight, double temperature, double attention_gain,
                                   bool with_gradient, const std::function<void(const AttentionMseProblem&)>& run);

LossAndGradient call_standardized_mse(const at::Tensor& student, const at::Tensor& teacher, double eps,
                                      bool with_gradient,
                                      const std::function<void(const StandardizedMseProblem&)>& run);

}  // namespace detkd
