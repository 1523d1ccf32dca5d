// detkd::attention_transfer on the CPU: registration, the division of work among threads, and what happens once an image.
#include <torch/library.h>

#include <cmath>

#include "../ops/feature_maps.h"
#include "kernels.h"
#include "parallel.h"

namespace {

constexpr int64_t kPiece = 1024;  // positions of a piece of work

double norm(const double* map, int64_t n) {
  double squares = 0;
  for (int64_t i = 0; i < n; ++i) squares += map[i] * map[i];
  return std::max(std::sqrt(squares), 1e-12);
}

// Squared difference of the normalised maps of one image, and the student map's gradient, times p.
double compare(const double* student, const double* teacher, int64_t n, double p, float* slope) {
  const double norm_s = norm(student, n), per_s = 1 / norm_s, per_t = 1 / norm(teacher, n);
  double total = 0, along = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double a = student[i] * per_s, gap = a - teacher[i] * per_t;
    total += gap * gap;
    along += gap * a;
  }
  // A map shorter than the smallest norm is not normalised but scaled.
  if (norm_s <= 1e-12) along = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double a = student[i] * per_s, gap = a - teacher[i] * per_t;
    slope[i] = static_cast<float>(2 * p * (gap - a * along) * per_s);
  }
  return total;
}

// Squared difference of the maps of one image, and the gradient.
double work(const detkd::AttentionTransferProblem& p, int64_t image) {
  const detkd::Kernels& kernels = detkd::kernels();
  const int64_t positions = p.maps.positions, room = positions + detkd::kWidest;
  std::vector<double> student(room), teacher(room);
  detkd::for_pieces(positions, kPiece, p.maps.channels, [&](int64_t begin, int64_t end) {
    kernels.attention_maps(p, image, begin, end, student.data(), teacher.data());
  });
  std::vector<float> slope(positions);
  const double total = compare(student.data(), teacher.data(), positions, p.p, slope.data());
  if (p.maps.gradient != nullptr) {
    for (float& x : slope) x *= p.maps.gradient_scale;
    detkd::for_pieces(positions, kPiece, p.maps.channels, [&](int64_t begin, int64_t end) {
      kernels.attention_slopes(p, image, begin, end, slope.data());
    });
  }
  return total;
}

void run(const detkd::AttentionTransferProblem& p) {
  const double total = detkd::sum_over_images(p.maps.batch, [&](int64_t image) { return work(p, image); });
  *p.maps.loss = static_cast<float>(total / (static_cast<double>(p.maps.batch) * p.maps.positions));
}

detkd::LossAndGradient attention_transfer(const at::Tensor& student, const at::Tensor& teacher, double p,
                                          bool with_gradient) {
  return detkd::call_attention_transfer(student, teacher, p, with_gradient, &run);
}

}  // namespace

TORCH_LIBRARY_IMPL(detkd, CPU, m) { m.impl("attention_transfer", &attention_transfer); }
