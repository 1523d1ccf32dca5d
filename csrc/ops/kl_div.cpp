// detkd::kl_div: the layouts that its kernels take, and its autograd. The schema stands in detkd/ops/kl_div.py.
#include "kl_div.h"

#include <ATen/Functions.h>
#include <torch/library.h>

#include "autograd.h"

namespace detkd {
namespace {

std::vector<int64_t> without(at::IntArrayRef sizes, int64_t dim) {
  std::vector<int64_t> rest = sizes.vec();
  rest.erase(rest.begin() + dim);
  return rest;
}

// Fills in strides; false where the tensors have neither neighbouring classes nor neighbouring positions.
bool lay_out(const Pair& pair, const at::Tensor& weight, const at::Tensor& loss, int64_t dim, KlDivProblem& p) {
  auto dims = dimensions(pair.student, pair.teacher, pair.gradient.defined() ? pair.gradient : pair.student);
  const Dimension classes = dims[dim];
  dims.erase(dims.begin() + dim);
  for (size_t d = 0; d < dims.size(); ++d) {
    if (weight.defined()) dims[d].weight = weight.stride(d);
    if (!p.reduced) dims[d].loss = loss.stride(d);
  }
  dims = collapse(dims);
  p.classes = classes.size;
  p.student_stride = classes.student;
  p.teacher_stride = classes.teacher;
  p.gradient_stride = classes.gradient;
  p.inner = 1;
  if (classes.student == 1 && classes.teacher == 1 && classes.gradient == 1) return fill_outer(dims, p.outer);
  if (dims.empty() || dims.back().student != 1 || dims.back().teacher != 1 || dims.back().gradient != 1) return false;
  p.inner = dims.back().size;
  p.weight_inner = dims.back().weight;
  p.loss_inner = dims.back().loss;
  dims.pop_back();
  return fill_outer(dims, p.outer);
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> call_kl_div(const at::Tensor& student, const at::Tensor& teacher, int64_t dim,
                                               double temperature, const std::optional<at::Tensor>& weight,
                                               std::string_view reduction, bool with_gradient, RunKlDiv run) {
  check_pair("kl_div", student, teacher);
  TORCH_CHECK(student.sizes() == teacher.sizes(), "kl_div: expected teacher of shape ", student.sizes(), ", but got ",
              teacher.sizes());
  TORCH_CHECK(dim >= 0 && dim < student.dim(), "kl_div: dim ", dim, " out of range");
  const auto positions = without(student.sizes(), dim);
  const double divide = divisor(student, dim, reduction);
  const auto options = student.options().dtype(at::kFloat);
  const at::Tensor loss = at::zeros(reduction == "none" ? positions : std::vector<int64_t>{}, options);
  const at::Tensor gradient = with_gradient ? at::empty_like(student) : at::empty({0}, student.options());
  if (student.numel() == 0) return {loss, gradient};

  KlDivProblem p;
  p.type = scalar_type_of(student);
  p.reduced = reduction != "none";
  p.temperature = static_cast<float>(temperature);
  p.loss_scale = static_cast<float>(1.0 / divide);
  p.gradient_scale = gradient_scale(p.type, divide);
  at::Tensor weights;
  if (weight.has_value()) weights = weight->to(at::kFloat).expand(positions);
  Pair pair{student, teacher, with_gradient ? gradient : at::Tensor()};
  if (!lay_out(pair, weights, loss, dim, p)) {
    pair = contiguous(pair);
    if (weights.defined()) weights = weights.contiguous();
    TORCH_INTERNAL_ASSERT(lay_out(pair, weights, loss, dim, p));
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

std::tuple<at::Tensor, at::Tensor> kl_div(const at::Tensor& student, const at::Tensor& teacher, int64_t dim,
                                          double temperature, const std::optional<at::Tensor>& weight,
                                          c10::string_view reduction, bool with_gradient) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("detkd::kl_div", "").typed<decltype(kl_div)>();
  const bool none = reduction == "none";
  const double divisor = student.scalar_type() == at::kHalf && !none ? detkd::divisor(student, dim, reduction) : 1.0;
  return detkd::differentiate(
      student, {"kl_div", with_gradient, divisor, !none, none ? std::optional<int64_t>(dim) : std::nullopt},
      [&] { return op.call(student, teacher, dim, temperature, weight, reduction, with_gradient); });
}

}  // namespace

TORCH_LIBRARY_IMPL(detkd, Autograd, m) { m.impl("kl_div", &kl_div); }
