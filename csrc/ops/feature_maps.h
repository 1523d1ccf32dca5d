// What the ops on feature maps [N, C, H, W] share: from tensors to a problem.
#pragma once

#include <functional>
#include <tuple>

#include "tensors.h"

namespace detkd {

// Lays student and teacher out as planes of neighbouring positions, copying where they are not, makes room for loss and
// gradient, and calls `run` unless there is nothing to compare. The gradient's scale is 1 / `divisor`, or 1 for float16.
std::tuple<at::Tensor, at::Tensor> call_on_maps(const char* op, const at::Tensor& student, const at::Tensor& teacher,
                                                bool same_channels, double divisor, bool with_gradient,
                                                const std::function<void(const FeatureMaps&)>& run);

}  // namespace detkd
