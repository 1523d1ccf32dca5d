// Autograd of the fused ops: their gradient is ready after forward, backward multiplies it by the incoming one.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <tuple>

namespace detkd {

using LossAndGradient = std::tuple<at::Tensor, at::Tensor>;

struct Differentiation {
  const char* op;
  bool with_gradient;
  // What the op left undone in a float16 gradient, see gradient_scale().
  double divisor;
  bool reduced;
  // The dimension that a loss that is not reduced lacks; none where it has them all.
  std::optional<int64_t> broadcast;
};

// Runs the op below autograd and connects its loss to the student.
LossAndGradient differentiate(const at::Tensor& student, const Differentiation& how,
                              const std::function<LossAndGradient()>& op);

}  // namespace detkd
