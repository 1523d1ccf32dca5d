// What the CPU and the CUDA kernel of detkd::binary_kl share: from tensors to a problem.
#pragma once

#include <string_view>
#include <tuple>

#include "tensors.h"

namespace detkd {

using RunBinaryKl = void (*)(const BinaryKlProblem&, const at::Tensor& student);

std::tuple<at::Tensor, at::Tensor> call_binary_kl(const at::Tensor& student, const at::Tensor& teacher,
                                                  double temperature, double beta, std::string_view kind,
                                                  const std::optional<at::Tensor>& weight, std::string_view reduction,
                                                  bool with_gradient, RunBinaryKl run);

}  // namespace detkd
