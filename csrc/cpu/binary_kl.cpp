// detkd::binary_kl on the CPU: registration, and the division of work among threads.
#include "../ops/binary_kl.h"

#include <torch/library.h>

#include "kernels.h"
#include "parallel.h"

namespace {

constexpr int64_t kLogits = 16384;  // of a piece of work

void run(const detkd::BinaryKlProblem& p) {
  const double total = detkd::sum_over(
      p.outer.count, p.inner, kLogits,
      [&](int64_t begin, int64_t end) { return detkd::kernels().binary_kl(p, begin, end); });
  if (p.reduced) *p.loss = static_cast<float>(total * p.loss_scale);
}

detkd::LossAndGradient binary_kl(const at::Tensor& student, const at::Tensor& teacher, double temperature, double beta,
                                 c10::string_view kind, const std::optional<at::Tensor>& weight,
                                 c10::string_view reduction, bool with_gradient) {
  return detkd::call_binary_kl(student, teacher, temperature, beta, kind, weight, reduction, with_gradient, &run);
}

}  // namespace

TORCH_LIBRARY_IMPL(detkd, CPU, m) { m.impl("binary_kl", &binary_kl); }
