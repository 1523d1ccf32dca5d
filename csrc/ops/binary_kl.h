// What the CPU and the CUDA kernel of detkd::binary_kl share: from tensors to a problem.
#pragma once

#include <functional>
#include <optional>
#include <string_view>

#include "tensors.h"

namespace detkd {

LossAndGradient call_binary_kl(const at::Tensor& student, const at::Tensor& teacher, double temperature, double beta,
                               std::string_view kind, const std::optional<at::Tensor>& weight,
                               std::string_view reduction, bool with_gradient,
                               const std::function<void(const BinaryKlProblem&)>& run);

}  // namespace detkd
