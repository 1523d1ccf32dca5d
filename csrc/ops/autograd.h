// Autograd of the fused ops: their gradient is ready after forward, backward multiplies it by the incoming one.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <functional>
#include <optional>

#include "tensors.h"

namespace detkd {

struct Differentiation {
  const char* op;
  bool with_gradient;
  // What the op left undone in a float16 gradient, see gradient_scale().
  double divisor;
  bool reduced;
  // The dimension that a loss that is not reduced lacks; none where it has them all.
  std::optional<int64_t> broadcast;
};

// The op of that name, to be called with a function's own signature.
template <typename Op>
auto find_op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Op>();
}

// Runs the op below autograd and connects its loss to the student.
LossAndGradient differentiate(const at::Tensor& student, const Differentiation& how,
                              const std::function<LossAndGradient()>& op);

}  // namespace detkd
