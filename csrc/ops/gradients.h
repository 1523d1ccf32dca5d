// Memory for gradients.
#pragma once

#include <ATen/core/Tensor.h>

namespace detkd {

// As at::empty_like. On the CPU a large gradient's memory is kept when it is freed, for the next step's gradient.
at::Tensor empty_gradient(const at::Tensor& student);

}  // namespace detkd
