// The three ops on feature maps: layouts and autograd. Their schemas stand in detkd/ops/.
#include "feature_maps.h"

#include <ATen/Functions.h>
#include <torch/library.h>

#include "autograd.h"
#include "gradients.h"

namespace detkd {
namespace {

at::Tensor as_planes(const at::Tensor& maps) {
  const bool planes = (maps.size(3) == 1 || maps.stride(3) == 1) && (maps.size(2) == 1 || maps.stride(2) == maps.size(3));
  return planes ? maps : maps.contiguous();
}

// What the loss's mean divides by: the gradient's divisor.
double per_position(const at::Tensor& student) {
  return static_cast<double>((student.sym_size(0) * student.sym_size(2) * student.sym_size(3)).guard_int(__FILE__, __LINE__));
}
double per_image(const at::Tensor& student) {
  return static_cast<double>(student.sym_size(0).guard_int(__FILE__, __LINE__));
}
double per_value(const at::Tensor& student) {
  return static_cast<double>(student.sym_numel().guard_int(__FILE__, __LINE__));
}

LossAndGradient call_on_maps(const char* op, const at::Tensor& student, const at::Tensor& teacher, bool same_channels,
                             double (*divisor)(const at::Tensor&), bool with_gradient,
                             const std::function<void(const FeatureMaps&)>& run) {
  check_pair(op, student, teacher);
  const bool fits = student.dim() == 4 && teacher.dim() == 4 && student.size(0) == teacher.size(0) &&
                    student.size(2) == teacher.size(2) && student.size(3) == teacher.size(3) &&
                    (!same_channels || student.size(1) == teacher.size(1));
  TORCH_CHECK(fits, op, ": expected [N, C, H, W] of fitting shapes, but got ", student.sizes(), " and ", teacher.sizes());
  const at::Tensor loss = at::zeros({}, student.options().dtype(at::kFloat));
  const at::Tensor gradient = with_gradient ? empty_gradient(student) : at::empty({0}, student.options());
  if (student.numel() == 0 || teacher.numel() == 0) return {loss, with_gradient ? gradient.zero_() : gradient};

  const at::Tensor s = as_planes(student), t = as_planes(teacher);
  const at::Tensor room = !with_gradient || gradient.is_contiguous() ? gradient : at::empty(student.sizes(), student.options());
  FeatureMaps maps;
  maps.type = scalar_type_of(student);
  maps.student = s.const_data_ptr();
  maps.teacher = t.const_data_ptr();
  maps.gradient = with_gradient ? room.mutable_data_ptr() : nullptr;
  maps.loss = loss.mutable_data_ptr<float>();
  maps.batch = student.size(0);
  maps.channels = student.size(1);
  maps.positions = student.size(2) * student.size(3);
  maps.student_batch = s.stride(0);
  maps.student_channel = s.stride(1);
  maps.teacher_batch = t.stride(0);
  maps.teacher_channel = t.stride(1);
  maps.gradient_scale = gradient_scale(maps.type, divisor(student));
  run(maps);
  if (!room.is_same(gradient)) gradient.copy_(room);
  return {loss, gradient};
}

// Connects an op's loss to the student. A float16 gradient comes without its division, see gradient_scale().
LossAndGradient differentiate_maps(const char* op, const at::Tensor& student, double (*divisor)(const at::Tensor&),
                                   bool with_gradient, const std::function<LossAndGradient()>& call) {
  const double undone = student.scalar_type() == at::kHalf ? std::max(divisor(student), 1.0) : 1.0;
  return differentiate(student, {op, with_gradient, undone, true, std::nullopt}, call);
}

LossAndGradient attention_transfer(const at::Tensor& student, const at::Tensor& teacher, double p, bool with_gradient) {
  static const auto op = find_op<decltype(attention_transfer)>("detkd::attention_transfer");
  return differentiate_maps("attention_transfer", student, &per_position, with_gradient,
                            [&] { return op.call(student, teacher, p, with_gradient); });
}

LossAndGradient attention_mse(const at::Tensor& student, const at::Tensor& teacher,
                              const std::optional<at::Tensor>& weight, double temperature, double attention_gain,
                              bool with_gradient) {
  static const auto op = find_op<decltype(attention_mse)>("detkd::attention_mse");
  return differentiate_maps("attention_mse", student, &per_image, with_gradient, [&] {
    return op.call(student, teacher, weight, temperature, attention_gain, with_gradient);
  });
}

LossAndGradient standardized_mse(const at::Tensor& student, const at::Tensor& teacher, double eps, bool with_gradient) {
  static const auto op = find_op<decltype(standardized_mse)>("detkd::standardized_mse");
  return differentiate_maps("standardized_mse", student, &per_value, with_gradient,
                            [&] { return op.call(student, teacher, eps, with_gradient); });
}

}  // namespace

LossAndGradient call_attention_transfer(const at::Tensor& student, const at::Tensor& teacher, double p,
                                        bool with_gradient,
                                        const std::function<void(const AttentionTransferProblem&)>& run) {
  return call_on_maps("attention_transfer", student, teacher, false, &per_position, with_gradient,
                      [&](const FeatureMaps& maps) { run({maps, teacher.size(1), static_cast<float>(p)}); });
}

LossAndGradient call_attention_mse(const at::Tensor& student, const at::Tensor& teacher,
                                   const std::optional<at::Tensor>& weight, double temperature, double attention_gain,
                                   bool with_gradient, const std::function<void(const AttentionMseProblem&)>& run) {
  return call_on_maps("attention_mse", student, teacher, true, &per_image, with_gradient, [&](const FeatureMaps& maps) {
    at::Tensor weights;
    if (weight.has_value()) {
      weights = weight->to(at::kFloat).expand({student.size(0), student.size(2), student.size(3)}).contiguous();
    }
    run({maps, weights.defined() ? weights.const_data_ptr<float>() : nullptr, static_cast<float>(temperature),
         static_cast<float>(attention_gain)});
  });
}

LossAndGradient call_standardized_mse(const at::Tensor& student, const at::Tensor& teacher, double eps,
                                      bool with_gradient,
                                      const std::function<void(const StandardizedMseProblem&)>& run) {
  return call_on_maps("standardized_mse", student, teacher, true, &per_value, with_gradient,
                      [&](const FeatureMaps& maps) { run({maps, static_cast<float>(eps)}); });
}

}  // namespace detkd

TORCH_LIBRARY_IMPL(detkd, Autograd, m) {
  m.impl("attention_transfer", &detkd::attention_transfer);
  m.impl("attention_mse", &detkd::attention_mse);
  m.impl("standardized_mse", &detkd::standardized_mse);
}
