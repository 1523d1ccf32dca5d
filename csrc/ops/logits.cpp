#include "logits.h"

#include <ATen/Functions.h>

#include "gradients.h"

namespace detkd {
namespace {

// What the reduction of that name divides by; 1 for none.
double divisor(const at::Tensor& tensor, int64_t dim, std::string_view reduction) {
  if (reduction == "none" || reduction == "sum") return 1;
  int64_t all = 1, first = 0;
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    if (d == dim) continue;
    const int64_t size = tensor.sym_size(d).guard_int(__FILE__, __LINE__);
    if (first == 0) first = std::max<int64_t>(size, 1);
    all *= size;
  }
  if (reduction == "mean") return std::max<double>(static_cast<double>(all), 1);
  TORCH_CHECK(reduction == "batchmean", "detkd: expected reduction to be none, sum, mean or batchmean, but got ", reduction);
  return std::max<double>(static_cast<double>(first), 1);
}

std::vector<int64_t> positions_of(const at::Tensor& tensor, int64_t dim) {
  std::vector<int64_t> sizes = tensor.sizes().vec();
  if (dim >= 0) sizes.erase(sizes.begin() + dim);
  return sizes;
}

struct Call {
  at::Tensor student, teacher, gradient, weight, mask, loss;  // gradient, weight and mask may be undefined
};

// Fills in strides; false where neither the elements of `dim` nor positions are neighbours in all tensors.
bool lay_out(const Call& call, int64_t dim, const std::function<bool(const Dimension&)>& take_dim, LogitsProblem& p) {
  auto dims = dimensions(call.student, call.teacher, call.gradient.defined() ? call.gradient : call.student);
  for (size_t d = 0; call.mask.defined() && d < dims.size(); ++d) dims[d].mask = call.mask.stride(d);
  const bool neighbours = dim >= 0 && take_dim(dims[dim]);
  if (dim >= 0) dims.erase(dims.begin() + dim);
  for (size_t d = 0; d < dims.size(); ++d) {
    if (call.weight.defined()) dims[d].weight = call.weight.stride(d);
    if (!p.reduced) dims[d].loss = call.loss.stride(d);
  }
  dims = collapse(dims);
  p.inner = 1;
  if (neighbours || (dim < 0 && dims.empty())) return fill_outer(dims, p.outer);
  if (dims.empty() || dims.back().student != 1 || dims.back().teacher != 1 || dims.back().gradient != 1) return false;
  p.inner = dims.back().size;
  p.weight_inner = dims.back().weight;
  p.loss_inner = dims.back().loss;
  dims.pop_back();
  return fill_outer(dims, p.outer);
}

void make_contiguous(Call& call) {
  call.student = call.student.contiguous();
  call.teacher = call.teacher.contiguous();
  if (call.gradient.defined()) call.gradient = at::empty_like(call.student);
  if (call.weight.defined()) call.weight = call.weight.contiguous();
}

}  // namespace

LossAndGradient call_on_logits(const char* op, const at::Tensor& student, const at::Tensor& teacher, int64_t dim,
                               double temperature, const std::optional<at::Tensor>& weight, const at::Tensor& mask,
                               std::string_view reduction, bool with_gradient, LogitsProblem& p,
                               const std::function<bool(const Dimension&)>& take_dim, const std::function<void()>& run) {
  check_pair(op, student, teacher);
  TORCH_CHECK(student.sizes() == teacher.sizes(), op, ": expected teacher of shape ", student.sizes(), ", but got ",
              teacher.sizes());
  const auto positions = positions_of(student, dim);
  const double divide = divisor(student, dim, reduction);
  p.reduced = reduction != "none";
  const auto options = student.options().dtype(at::kFloat);
  const at::Tensor loss = at::zeros(p.reduced ? std::vector<int64_t>{} : positions, options);
  const at::Tensor gradient = with_gradient ? empty_gradient(student) : at::empty({0}, student.options());
  if (student.numel() == 0) return {loss, gradient};

  p.type = scalar_type_of(student);
  p.temperature = static_cast<float>(temperature);
  p.loss_scale = static_cast<float>(1.0 / divide);
  p.gradient_scale = gradient_scale(p.type, divide);
  Call call{student, teacher, with_gradient ? gradient : at::Tensor(), {}, mask, loss};
  if (weight.has_value()) call.weight = weight->to(at::kFloat).expand(positions);
  if (!lay_out(call, dim, take_dim, p)) {
    TORCH_INTERNAL_ASSERT(!mask.defined());
    make_contiguous(call);
    TORCH_INTERNAL_ASSERT(lay_out(call, dim, take_dim, p));
  }
  p.student = call.student.const_data_ptr();
  p.teacher = call.teacher.const_data_ptr();
  p.gradient = with_gradient ? call.gradient.mutable_data_ptr() : nullptr;
  p.weight = call.weight.defined() ? call.weight.const_data_ptr<float>() : nullptr;
  p.loss = loss.mutable_data_ptr<float>();
  run();
  if (with_gradient && !call.gradient.is_same(gradient)) gradient.copy_(call.gradient);
  return {loss, gradient};
}

double undone(const at::Tensor& student, int64_t dim, std::string_view reduction) {
  return student.scalar_type() == at::kHalf ? divisor(student, dim, reduction) : 1.0;
}

}  // namespace detkd
