// detkd::kl_div: the layout of its classes, and its autograd. The schema stands in detkd/ops/kl_div.py.
#include "kl_div.h"

#include <torch/library.h>

#include "autograd.h"
#include "gradients.h"
#include "logits.h"

namespace detkd {
namespace {

// Kernels take a mask where classes are neighbours in all tensors, and no more dimensions are around them than fit.
bool takes_mask(const at::Tensor& student, const at::Tensor& teacher, const at::Tensor& mask, int64_t dim) {
  return student.dim() <= kMaxDims + 1 && student.stride(dim) == 1 && teacher.stride(dim) == 1 && mask.stride(dim) == 1;
}

}  // namespace

LossAndGradient call_kl_div(const at::Tensor& student, const at::Tensor& teacher, int64_t dim, double temperature,
                            const std::optional<at::Tensor>& weight, const std::optional<at::Tensor>& mask,
                            std::string_view reduction, bool with_gradient,
                            const std::function<void(const KlDivProblem&)>& run) {
  TORCH_CHECK(dim >= 0 && dim < student.dim(), "kl_div: dim ", dim, " out of range");
  const at::Tensor kept = mask.has_value() ? mask->to(at::kFloat).expand(student.sizes()) : at::Tensor();
  if (kept.defined() && student.numel() > 0 && !takes_mask(student, teacher, kept, dim)) {
    const auto last = [&](const at::Tensor& x) { return x.movedim(dim, -1).contiguous(); };
    const auto [loss, gradient] = call_kl_div(last(student), last(teacher), student.dim() - 1, temperature, weight,
                                              last(kept), reduction, with_gradient, run);
    if (!with_gradient) return {loss, gradient};
    return {loss, empty_gradient(student).copy_(gradient.movedim(-1, dim))};
  }
  KlDivProblem p;
  p.mask = kept.defined() ? kept.const_data_ptr<float>() : nullptr;
  const auto take_classes = [&](const Dimension& classes) {
    p.classes = classes.size;
    p.student_stride = classes.student;
    p.teacher_stride = classes.teacher;
    p.gradient_stride = classes.gradient;
    return classes.student == 1 && classes.teacher == 1 && classes.gradient == 1;
  };
  return call_on_logits("kl_div", student, teacher, dim, temperature, weight, kept, reduction, with_gradient, p,
                        take_classes, [&] { run(p); });
}

}  // namespace detkd

namespace {

detkd::LossAndGradient kl_div(const at::Tensor& student, const at::Tensor& teacher, int64_t dim, double temperature,
                              const std::optional<at::Tensor>& weight, const std::optional<at::Tensor>& mask,
                              c10::string_view reduction, bool with_gradient) {
  static const auto op = detkd::find_op<decltype(kl_div)>("detkd::kl_div");
  const bool reduced = reduction != "none";
  const detkd::Differentiation how{"kl_div", with_gradient, detkd::undone(student, dim, reduction), reduced,
                                   reduced ? std::nullopt : std::optional<int64_t>(dim)};
  return detkd::differentiate(student, how, [&] {
    return op.call(student, teacher, dim, temperature, weight, mask, reduction, with_gradient);
  });
}

}  // namespace

TORCH_LIBRARY_IMPL(detkd, Autograd, m) { m.impl("kl_div", &kl_div); }
