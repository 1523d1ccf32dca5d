// What the kernels of detkd::kl_div_rows share: checks, the [outer, classes, inner] view, and room for the results.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace detkd {

struct KlDivCall {
  at::Tensor student, teacher;  // contiguous
  at::Tensor loss, gradient;    // zeros, and empty room; the gradient has no element where none is wanted
  int64_t outer = 1, classes = 1, inner = 1;
};

KlDivCall prepare_kl_div(const at::Tensor& student, const at::Tensor& teacher, int64_t dim, bool with_gradient);

}  // namespace detkd
