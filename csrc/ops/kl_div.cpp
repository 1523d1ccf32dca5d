// Schema of detkd::kl_div_rows; the kernels register themselves in cpu/.
#include <torch/library.h>

TORCH_LIBRARY_FRAGMENT(detkd, m) {
  // Divergence of each position (the input's shape without dim, float32), and its gradient with respect to the
  // student (the student's shape and type); the gradient is empty where with_gradient is false.
  m.def("kl_div_rows(Tensor student, Tensor teacher, int dim, float temperature, bool with_gradient) -> (Tensor, Tensor)");
}
