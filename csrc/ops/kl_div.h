// What the CPU and the CUDA kernel of detkd::kl_div share: from tensors to a problem.
#pragma once

#include <functional>
#include <optional>
#include <string_view>

#include "tensors.h"

namespace detkd {

LossAndGradient call_kl_div(const at::Tensor& student, const at::Tensor& teacher, int64_t dim, double temperature,
                            const std::optional<at::Tensor>& weight, const std::optional<at::Tensor>& mask,
                            std::string_view reduction, bool with_gradient,
                            const std::function<void(const KlDivProblem&)>& run);

}  // namespace detkd
