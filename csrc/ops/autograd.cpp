#include "autograd.h"

#include <ATen/Functions.h>
#include <ATen/TensorSubclassLikeUtils.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/library.h>

namespace detkd {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor scaled(const at::Tensor& gradient, const at::Tensor& factor, bool in_place) {
  if (!in_place) return gradient.to(at::kFloat).mul(factor).to(gradient.scalar_type());
  // A graph that is kept will need the gradient again as it is; else nobody will, and it is scaled where it lies.
  const at::Tensor result = torch::autograd::get_current_graph_task_keep_graph() ? gradient.clone() : gradient;
  static const auto scale = find_op<void(at::Tensor, const at::Tensor&)>("detkd::scale_");
  scale.call(result, factor);
  return result;
}

struct Fused : torch::autograd::Function<Fused> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& student, const Differentiation& how,
                               const std::function<LossAndGradient()>& op) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto [loss, gradient] = op();
    ctx->save_for_backward({gradient});
    ctx->saved_data["op"] = how.op;
    ctx->saved_data["with_gradient"] = how.with_gradient;
    ctx->saved_data["divisor"] = student.scalar_type() == at::kHalf ? how.divisor : 1.0;
    ctx->saved_data["reduced"] = how.reduced;
    ctx->saved_data["broadcast"] = how.broadcast;
    // The gradient is autograd's from here on, which may scale it where it lies: the caller gets none.
    const at::Tensor none = at::empty({0}, student.options());
    ctx->mark_non_differentiable({none});
    return {loss, none};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const std::string op = ctx->saved_data["op"].toStringRef();
    const at::Tensor gradient = ctx->get_saved_variables()[0];
    // Under torch.compile and its like, tensors are stand-ins of another class and nothing may be changed in place.
    const bool traced = at::isTensorSubclassLike(gradient);
    // The gradient came ready from the forward pass and carries no graph.
    TORCH_CHECK_NOT_IMPLEMENTED(traced || !at::GradMode::is_enabled(), op,
                                ": the fused kernel has no second derivative. Use backend='reference' for one.");
    TORCH_CHECK(ctx->saved_data["with_gradient"].toBool(), op, ": backward needs with_gradient=True in forward.");
    const double divisor = ctx->saved_data["divisor"].toDouble();
    const auto broadcast = ctx->saved_data["broadcast"].toOptional<int64_t>();
    at::Tensor factor = grads[0];
    if (divisor != 1.0) factor = factor.div(divisor);
    if (broadcast.has_value()) factor = factor.unsqueeze(*broadcast);
    return {scaled(gradient, factor, !traced && ctx->saved_data["reduced"].toBool()), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

LossAndGradient differentiate(const at::Tensor& student, const Differentiation& how,
                              const std::function<LossAndGradient()>& op) {
  if (!student.requires_grad() || !at::GradMode::is_enabled()) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    return op();
  }
  const auto outputs = Fused::apply(student, how, op);
  return {outputs[0], outputs[1]};
}

}  // namespace detkd
