// Schema of detkd::kl_div_rows, and what its kernels in cpu/ and cuda/ share.
#include "kl_div.h"

#include <ATen/Functions.h>
#include <torch/library.h>

#include <vector>

namespace detkd {

KlDivCall prepare_kl_div(const at::Tensor& student, const at::Tensor& teacher, int64_t dim, bool with_gradient) {
  TORCH_CHECK(student.sizes() == teacher.sizes(), "kl_div_rows: expected teacher of shape ", student.sizes(),
              ", but got ", teacher.sizes());
  TORCH_CHECK(student.scalar_type() == teacher.scalar_type(), "kl_div_rows: expected one dtype, but got ",
              student.scalar_type(), " and ", teacher.scalar_type());
  TORCH_CHECK(student.device() == teacher.device(), "kl_div_rows: expected one device, but got ", student.device(),
              " and ", teacher.device());
  TORCH_CHECK(dim >= 0 && dim < student.dim(), "kl_div_rows: dim ", dim, " out of range");
  KlDivCall call;
  call.student = student.contiguous();
  call.teacher = teacher.contiguous();
  call.classes = student.size(dim);
  std::vector<int64_t> positions;
  for (int64_t d = 0; d < student.dim(); ++d) {
    if (d == dim) continue;
    positions.push_back(student.size(d));
    (d < dim ? call.outer : call.inner) *= student.size(d);
  }
  call.loss = at::zeros(positions, student.options().dtype(at::kFloat));
  call.gradient = with_gradient ? at::empty_like(call.student) : at::empty({0}, student.options());
  return call;
}

}  // namespace detkd

TORCH_LIBRARY_FRAGMENT(detkd, m) {
  // Divergence of each position (the input's shape without dim, float32), and its gradient with respect to the
  // student (the student's shape and type); the gradient is empty where with_gradient is false.
  m.def("kl_div_rows(Tensor student, Tensor teacher, int dim, float temperature, bool with_gradient) -> (Tensor, Tensor)");
}
