// detkd::kl_div on the CPU: registration, and the division of work among threads.
#include "../ops/kl_div.h"

#include <torch/library.h>

#include "kernels.h"
#include "parallel.h"

namespace {

constexpr int64_t kLogits = 32768;  // of a piece of work
constexpr int64_t kTogether = 64;   // positions that kernels like to have together

void run(const detkd::KlDivProblem& p) {
  const bool rows = p.inner == 1;
  int64_t piece = std::max(kLogits / p.classes, rows ? 1 : kTogether);
  if (piece > kTogether) piece -= piece % kTogether;
  const double total =
      detkd::sum_over(rows ? 1 : p.outer.count, rows ? p.outer.count : p.inner, piece,
                      [&](int64_t begin, int64_t end) { return detkd::kernels().kl_div(p, begin, end); });
  if (p.reduced) *p.loss = static_cast<float>(total * p.loss_scale);
}

detkd::LossAndGradient kl_div(const at::Tensor& student, const at::Tensor& teacher, int64_t dim, double temperature,
                              const std::optional<at::Tensor>& weight, const std::optional<at::Tensor>& mask,
                              c10::string_view reduction, bool with_gradient) {
  return detkd::call_kl_div(student, teacher, dim, temperature, weight, mask, reduction, with_gradient, &run);
}

}  // namespace

TORCH_LIBRARY_IMPL(detkd, CPU, m) { m.impl("kl_div", &kl_div); }
