// From tensors to problems: checks and layouts that the ops share.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>
#include <vector>

#include "problem.h"

namespace detkd {

using LossAndGradient = std::tuple<at::Tensor, at::Tensor>;

// Refuses two tensors of unlike type or device.
void check_pair(const char* op, const at::Tensor& student, const at::Tensor& teacher);

ScalarType scalar_type_of(const at::Tensor& tensor);

// The gradient's factor 1 / divisor. A float16 gradient comes undivided: divided by tens of thousands of positions it
// would sink below the type's range before a loss scale could lift it. Its backward divides.
float gradient_scale(ScalarType type, double divisor);

// Strides of all tensors of a call along one dimension. An absent weight or mask has stride 0.
struct Dimension {
  int64_t size, student, teacher, gradient, weight, mask, loss;
};
std::vector<Dimension> dimensions(const at::Tensor& student, const at::Tensor& teacher, const at::Tensor& gradient);
// Orders dimensions by the student's strides and merges those that lie behind one another in every tensor.
std::vector<Dimension> collapse(std::vector<Dimension> dims);
// False where there are too many.
bool fill_outer(const std::vector<Dimension>& dims, Outer& outer);

}  // namespace detkd
