#include "tensors.h"

#include <algorithm>

namespace detkd {

void check_pair(const char* op, const at::Tensor& student, const at::Tensor& teacher) {
  TORCH_CHECK(student.scalar_type() == teacher.scalar_type(), op, ": expected one dtype, but got ",
              student.scalar_type(), " and ", teacher.scalar_type());
  TORCH_CHECK(student.device() == teacher.device(), op, ": expected one device, but got ", student.device(), " and ",
              teacher.device());
}

ScalarType scalar_type_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return ScalarType::kFloat;
    case at::kHalf:
      return ScalarType::kHalf;
    case at::kBFloat16:
      return ScalarType::kBFloat16;
    default:
      TORCH_CHECK(false, "detkd: expected float32, float16 or bfloat16, but got ", tensor.scalar_type());
  }
}

float gradient_scale(ScalarType type, double divisor) {
  return type == ScalarType::kHalf ? 1.0f : static_cast<float>(1.0 / divisor);
}

std::vector<Dimension> dimensions(const at::Tensor& student, const at::Tensor& teacher, const at::Tensor& gradient) {
  std::vector<Dimension> dims;
  for (int64_t d = 0; d < student.dim(); ++d) {
    dims.push_back({student.size(d), student.stride(d), teacher.stride(d), gradient.stride(d), 0, 0, 0});
  }
  return dims;
}

std::vector<Dimension> collapse(std::vector<Dimension> dims) {
  std::erase_if(dims, [](const Dimension& d) { return d.size == 1; });
  std::stable_sort(dims.begin(), dims.end(),
                   [](const Dimension& a, const Dimension& b) { return a.student > b.student; });
  std::vector<Dimension> merged;
  for (const Dimension& d : dims) {
    const auto follows = [&](int64_t outer, int64_t inner) { return outer == inner * d.size; };
    if (!merged.empty() && follows(merged.back().student, d.student) && follows(merged.back().teacher, d.teacher) &&
        follows(merged.back().gradient, d.gradient) && follows(merged.back().weight, d.weight) &&
        follows(merged.back().mask, d.mask) && follows(merged.back().loss, d.loss)) {
      const int64_t size = merged.back().size * d.size;
      merged.back() = d;
      merged.back().size = size;
    } else {
      merged.push_back(d);
    }
  }
  return merged;
}

bool fill_outer(const std::vector<Dimension>& dims, Outer& outer) {
  if (dims.size() > kMaxDims) return false;
  outer = Outer{};
  for (const Dimension& d : dims) {
    const int i = outer.ndim++;
    outer.count *= d.size;
    outer.size[i] = d.size;
    outer.student[i] = d.student;
    outer.teacher[i] = d.teacher;
    outer.gradient[i] = d.gradient;
    outer.weight[i] = d.weight;
    outer.mask[i] = d.mask;
    outer.loss[i] = d.loss;
  }
  return true;
}

}  // namespace detkd
