// What kl_div and binary_kl share on their way from tensors to a problem.
#pragma once

#include <functional>
#include <optional>
#include <string_view>

#include "tensors.h"

namespace detkd {

// Checks, makes room for loss and gradient, fills in `p` and calls `run` unless there is nothing to compare.
//
// Positions are all logits, or all without dimension `dim` where that is not -1. `take_dim` is then told the strides of
// `dim` and says whether its elements are neighbours; where they are not, and neither are positions, `run` gets
// contiguous copies. A mask, of the logits' shape or undefined, is told to `take_dim` and laid out with the rest; whoever
// gives one sees to it that no copies are needed.
LossAndGradient call_on_logits(const char* op, const at::Tensor& student, const at::Tensor& teacher, int64_t dim,
                               double temperature, const std::optional<at::Tensor>& weight, const at::Tensor& mask,
                               std::string_view reduction, bool with_gradient, LogitsProblem& p,
                               const std::function<bool(const Dimension&)>& take_dim, const std::function<void()>& run);

// What backward divides a float16 gradient by, see gradient_scale(); 1 for other types.
double undone(const at::Tensor& student, int64_t dim, std::string_view reduction);

}  // namespace detkd
