// From tensors to problems: checks and layouts that the ops share.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <string_view>
#include <vector>

#include "problem.h"

namespace detkd {

// Refuses two tensors of unlike shape, type or device, and types without kernels.
void check_pair(const char* op, const at::Tensor& student, const at::Tensor& teacher);

ScalarType scalar_type_of(const at::Tensor& tensor);

// What the reduction of that name divides by, for the positions of `tensor` without `dim` (-1: all of them); 1 for none.
double divisor(const at::Tensor& tensor, int64_t dim, std::string_view reduction);

// The gradient's factor 1 / divisor. A float16 gradient comes undivided: divided by tens of thousands of positions it
// would sink below the type's range before a loss scale could lift it. Its backward divides.
float gradient_scale(ScalarType type, double divisor);

// Strides of all tensors of a call along one dimension. An absent weight has stride 0.
struct Dimension {
  int64_t size, student, teacher, gradient, weight, loss;
};
std::vector<Dimension> dimensions(const at::Tensor& student, const at::Tensor& teacher, const at::Tensor& gradient);
// Orders dimensions by the student's strides and merges those that lie behind one another in every tensor.
std::vector<Dimension> collapse(std::vector<Dimension> dims);
// False where there are too many.
bool fill_outer(const std::vector<Dimension>& dims, Outer& outer);

// Runs a kernel that needs more order than the tensors have on contiguous copies.
struct Pair {
  at::Tensor student, teacher, gradient;
};
Pair contiguous(const Pair& pair);

}  // namespace detkd
