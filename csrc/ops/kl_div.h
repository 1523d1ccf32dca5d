// What the CPU and the CUDA kernel of detkd::kl_div share: from tensors to a problem.
#pragma once

#include <string_view>
#include <tuple>

#include "tensors.h"

namespace detkd {

using RunKlDiv = void (*)(const KlDivProblem&, const at::Tensor& student);

std::tuple<at::Tensor, at::Tensor> call_kl_div(const at::Tensor& student, const at::Tensor& teacher, int64_t dim,
                                               double temperature, const std::optional<at::Tensor>& weight,
                                               std::string_view reduction, bool with_gradient, RunKlDiv run);

}  // namespace detkd
