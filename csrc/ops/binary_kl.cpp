// detkd::binary_kl: its arguments, and its autograd. The schema stands in detkd/ops/binary_kl.py.
#include "binary_kl.h"

#include <torch/library.h>

#include "autograd.h"
#include "logits.h"

namespace detkd {

LossAndGradient call_binary_kl(const at::Tensor& student, const at::Tensor& teacher, double temperature, double beta,
                               std::string_view kind, const std::optional<at::Tensor>& weight,
                               std::string_view reduction, bool with_gradient,
                               const std::function<void(const BinaryKlProblem&)>& run) {
  TORCH_CHECK(kind == "kl" || kind == "bce", "binary_kl: expected kind kl or bce, but got ", kind);
  BinaryKlProblem p;
  p.cross_entropy = kind == "bce";
  p.beta = static_cast<float>(beta);
  return call_on_logits("binary_kl", student, teacher, -1, temperature, weight, {}, reduction, with_gradient, p, nullptr,
                        [&] { run(p); });
}

}  // namespace detkd

namespace {

detkd::LossAndGradient binary_kl(const at::Tensor& student, const at::Tensor& teacher, double temperature, double beta,
                                 c10::string_view kind, const std::optional<at::Tensor>& weight,
                                 c10::string_view reduction, bool with_gradient) {
  static const auto op = detkd::find_op<decltype(binary_kl)>("detkd::binary_kl");
  const detkd::Differentiation how{"binary_kl", with_gradient, detkd::undone(student, -1, reduction),
                                   reduction != "none", std::nullopt};
  return detkd::differentiate(student, how, [&] {
    return op.call(student, teacher, temperature, beta, kind, weight, reduction, with_gradient);
  });
}

}  // namespace

TORCH_LIBRARY_IMPL(detkd, Autograd, m) { m.impl("binary_kl", &binary_kl); }
