// The three ops on feature maps: layouts and autograd. Their schemas stand in detkd/ops/.
#include "feature_maps.h"

#include <ATen/Functions.h>
#include <torch/library.h>

#include "autograd.h"

namespace detkd {
namespace {

at::Tensor as_planes(const at::Tensor& maps) {
  const bool planes = (maps.size(3) == 1 || maps.stride(3) == 1) && (maps.size(2) == 1 || maps.stride(2) == maps.size(3));
  return planes ? maps : maps.contiguous();
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> call_on_maps(const char* op, const at::Tensor& student, const at::Tensor& teacher,
                                                bool same_channels, double divisor, bool with_gradient,
                                                const std::function<void(const FeatureMaps&)>& run) {
  check_pair(op, student, teacher);
  const bool fits = student.dim() == 4 && teacher.dim() == 4 && student.size(0) == teacher.size(0) &&
                    student.size(2) == teacher.size(2) && student.size(3) == teacher.size(3) &&
                    (!same_channels || student.size(1) == teacher.size(1));
  TORCH_CHECK(fits, op, ": expected [N, C, H, W] of fitting shapes, but got ", student.sizes(), " and ", teacher.sizes());
  const at::Tensor loss = at::zeros({}, student.options().dtype(at::kFloat));
  const at::Tensor gradient = with_gradient ? at::empty_like(student) : at::empty({0}, student.options());
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
  maps.gradient_scale = gradient_scale(maps.type, divisor);
  run(maps);
  if (!room.is_same(gradient)) gradient.copy_(room);
  return {loss, gradient};
}

}  // namespace detkd

namespace {

// What the mean divides by, where the gradient comes undivided.
double undone(const at::Tensor& maps, bool batch, bool channels, bool positions) {
  if (maps.scalar_type() != at::kHalf) return 1.0;
  double product = 1;
  const bool counts[4] = {batch, channels, positions, positions};
  for (int d = 0; d < 4; ++d) {
    if (counts[d]) product *= static_cast<double>(maps.sym_size(d).guard_int(__FILE__, __LINE__));
  }
  return std::max(product, 1.0);
}

template <typename Op>
auto find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Op>();
}

detkd::LossAndGradient attention_transfer(const at::Tensor& student, const at::Tensor& teacher, double p,
                                          bool with_gradient) {
  static const auto op = find<decltype(attention_transfer)>("detkd::attention_transfer");
  return detkd::differentiate(
      student, {"attention_transfer", with_gradient, undone(student, true, false, true), true, std::nullopt},
      [&] { return op.call(student, teacher, p, with_gradient); });
}

detkd::LossAndGradient attention_mse(const at::Tensor& student, const at::Tensor& teacher,
                                     const std::optional<at::Tensor>& weight, double temperature,
                                     double attention_gain, bool with_gradient) {
  static const auto op = find<decltype(attention_mse)>("detkd::attention_mse");
  return detkd::differentiate(
      student, {"attention_mse", with_gradient, undone(student, true, false, false), true, std::nullopt},
      [&] { return op.call(student, teacher, weight, temperature, attention_gain, with_gradient); });
}

detkd::LossAndGradient standardized_mse(const at::Tensor& student, const at::Tensor& teacher, double eps,
                                        bool with_gradient) {
  static const auto op = find<decltype(standardized_mse)>("detkd::standardized_mse");
  return detkd::differentiate(
      student, {"standardized_mse", with_gradient, undone(student, true, true, true), true, std::nullopt},
      [&] { return op.call(student, teacher, eps, with_gradient); });
}

}  // namespace

TORCH_LIBRARY_IMPL(detkd, Autograd, m) {
  m.impl("attention_transfer", &attention_transfer);
  m.impl("attention_mse", &attention_mse);
  m.impl("standardized_mse", &standardized_mse);
}
