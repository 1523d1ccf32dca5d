// detkd::standardized_mse on the CPU: registration, and the division of work among threads.
#include <torch/library.h>

#include "../ops/feature_maps.h"
#include "kernels.h"
#include "parallel.h"

namespace {

void run(const detkd::StandardizedMseProblem& p) {
  const detkd::FeatureMaps& maps = p.maps;
  const double total = detkd::sum_over(1, maps.channels, 1, [&](int64_t begin, int64_t end) {
    return detkd::kernels().standardized_mse(p, begin, end);
  });
  *maps.loss = static_cast<float>(total / (static_cast<double>(maps.batch) * maps.channels * maps.positions));
}

detkd::LossAndGradient standardized_mse(const at::Tensor& student, const at::Tensor& teacher, double eps,
                                        bool with_gradient) {
  return detkd::call_standardized_mse(student, teacher, eps, with_gradient, &run);
}

}  // namespace

TORCH_LIBRARY_IMPL(detkd, CPU, m) { m.impl("standardized_mse", &standardized_mse); }
