// detkd::binary_kl: the layouts that its kernels take, and its autograd. The schema stands in detkd/ops/binary_kl.py.
#include "binary_kl.h"

#include <ATen/Functions.h>
#include <torch/library.h>

#include "autograd.h"

namespace detkd {
namespace {

// Fills in strides; false where logits are not neighbours in all tensors.
bool lay_out(const Pair& pair, const at::Tensor& weight, const at::Tensor& loss, BinaryKlProblem& p) {
  auto dims = dimensions(pair.student, pair.teacher, pair.gradient.defined() ? pair.gradient : pair.student);
  for (size_t d = 0; d < dims.size(); ++d) {
    if (weight.defined()) dims[d].weight = weight.stride(d);
    if (!p.reduced) dims[d].loss = loss.stride(d);
  }
  dims = collapse(dims);
  p.inner = 1;
  if (dims.empty()) return fill_outer(dims, p.outer);
  if (dims.back().student != 1 || dims.back().teacher != 1 || dims.back().gradient != 1) return false;
  p.inner = dims.back().size;
  p.weight_inner = dims.back().weight;
  p.loss_inner = dims.back().loss;
  dims.pop_back();
  return fill_outer(dims, p.outer);
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> call_binary_kl(const at::Tensor& student, const at::Tensor& teacher,
                                                  double temperature, double beta, std::string_view kind,
                                                  const std::optional<at::Tensor>& weight, std::string_view reduction,
                                                  bool with_gradient, RunBinaryKl run) {
  check_pair("binary_kl", student, teacher);
  TORCH_CHECK(student.sizes() == teacher.sizes(), "binary_kl: expected teacher of shape ", student.sizes(),
              ", but got ", teacher.sizes());
  TORCH_CHECK(kind == "kl" || kind == "bce", "binary_kl: expected kind kl or bce, but got ", kind);
  const double divide = divisor(student, -1, reduction);
  const auto options = student.options().dtype(at::kFloat);
  const at::Tensor loss = at::zeros(reduction == "none" ? student.sizes() : at::IntArrayRef{}, options);
  const at::Tensor gradient = with_gradient ? at::empty_like(student) : at::empty({0}, student.options());
  if (student.numel() == 0) return {loss, gradient};

  BinaryKlProblem p;
  p.type = scalar_type_of(student);
  p.reduced = reduction != "none";
  p.cross_entropy = kind == "bce";
  p.temperature = static_cast<float>(temperature);
  p.beta = static_cast<float>(beta);
  p.loss_scale = static_cast<float>(1.0 / divide);
  p.gradient_scale = gradient_scale(p.type, divide);
  at::Tensor weights;
  if (weight.has_value()) weights = weight->to(at::kFloat).expand(student.sizes());
  Pair pair{student, teacher, with_gradient ? gradient : at::Tensor()};
  if (!lay_out(pair, weights, loss, p)) {
    pair = contiguous(pair);
    if (weights.defined()) weights = weights.contiguous();
    TORCH_INTERNAL_ASSERT(lay_out(pair, weights, loss, p));
  }
  p.student = pair.student.const_data_ptr();
  p.teacher = pair.teacher.const_data_ptr();
  p.gradient = with_gradient ? pair.gradient.mutable_data_ptr() : nullptr;
  p.weight = weights.defined() ? weights.const_data_ptr<float>() : nullptr;
  p.loss = loss.mutable_data_ptr<float>();
  run(p, student);
  if (with_gradient && !pair.gradient.is_same(gradient)) gradient.copy_(pair.gradient);
  return {loss, gradient};
}

}  // namespace detkd

namespace {

std::tuple<at::Tensor, at::Tensor> binary_kl(const at::Tensor& student, const at::Tensor& teacher, double temperature,
                                             double beta, c10::string_view kind,
                                             const std::optional<at::Tensor>& weight, c10::string_view reduction,
                                             bool with_gradient) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("detkd::binary_kl", "").typed<decltype(binary_kl)>();
  // A loss of each logit has all dimensions; a scalar would be broadcast just the same.
  const bool none = reduction == "none";
  const double divide = student.scalar_type() == at::kHalf && !none ? detkd::divisor(student, -1, reduction) : 1.0;
  return detkd::differentiate(student, {"binary_kl", with_gradient, divide, !none, std::nullopt}, [&] {
    return op.call(student, teacher, temperature, beta, kind, weight, reduction, with_gradient);
  });
}

}  // namespace

TORCH_LIBRARY_IMPL(detkd, Autograd, m) { m.impl("binary_kl", &binary_kl); }
