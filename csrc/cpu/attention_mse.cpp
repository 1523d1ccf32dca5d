// detkd::attention_mse on the CPU: registration, the division of work among threads, and what happens once an image.
#include <torch/library.h>

#include <cmath>
#include <numeric>

#include "../ops/feature_maps.h"
#include "kernels.h"
#include "parallel.h"

namespace {

constexpr int64_t kPiece = 128;  // positions of a piece of work

// Attention along one axis of one image, and what the student's mean of |f| gets as gradient.
struct Axis {
  std::vector<double> student_sums, teacher_sums;  // of |f|
  std::vector<float> student, teacher, slope;

  explicit Axis(int64_t n) : student_sums(n), teacher_sums(n), student(n), teacher(n), slope(n) {}

  // Each sum is over `each` elements. Returns the L1 distance of the two.
  double compare(double each, double temperature, double gain) {
    const int64_t n = static_cast<int64_t>(student.size());
    detkd::kernels().scaled_softmax(student_sums.data(), n, temperature * each, student.data());
    detkd::kernels().scaled_softmax(teacher_sums.data(), n, temperature * each, teacher.data());
    const auto sign = [&](int64_t i) { return (student[i] > teacher[i]) - (student[i] < teacher[i]); };
    double distance = 0, mean = 0;
    for (int64_t i = 0; i < n; ++i) {
      distance += std::abs(static_cast<double>(student[i]) - teacher[i]);
      mean += static_cast<double>(sign(i)) * student[i] / n;
    }
    for (int64_t i = 0; i < n; ++i) {
      slope[i] = static_cast<float>(gain * student[i] * (sign(i) - mean) / (temperature * each));
    }
    return distance;
  }
};

// Loss of one image, not divided by the batch, and the gradient.
double work(const detkd::AttentionMseProblem& p, int64_t image) {
  const detkd::Kernels& kernels = detkd::kernels();
  const int64_t positions = p.maps.positions, channels = p.maps.channels, pieces = (positions + kPiece - 1) / kPiece;
  Axis space(positions), depth(channels);
  std::vector<double> by_channel(2 * pieces * channels);
  detkd::for_pieces(positions, kPiece, channels, [&](int64_t begin, int64_t end) {
    double* sums = by_channel.data() + 2 * (begin / kPiece) * channels;
    kernels.focal_sums(p, image, begin, end, {space.student_sums.data(), space.teacher_sums.data(), sums, sums + channels});
  });
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t piece = 0; piece < pieces; ++piece) {
      depth.student_sums[c] += by_channel[2 * piece * channels + c];
      depth.teacher_sums[c] += by_channel[(2 * piece + 1) * channels + c];
    }
  }
  const double distance = space.compare(static_cast<double>(channels), p.temperature, p.attention_gain) +
                          depth.compare(static_cast<double>(positions), p.temperature, p.attention_gain);
  std::vector<float> weight(positions);
  for (int64_t i = 0; i < positions; ++i) {
    weight[i] = (p.weight == nullptr ? 1.0f : p.weight[image * positions + i]) * space.teacher[i];
  }
  const detkd::FocalWeights weights{weight.data(), depth.teacher.data(), space.slope.data(), depth.slope.data()};
  std::vector<double> errors(pieces);
  detkd::for_pieces(positions, kPiece, channels, [&](int64_t begin, int64_t end) {
    errors[begin / kPiece] = kernels.focal_errors(p, image, begin, end, weights);
  });
  return std::accumulate(errors.begin(), errors.end(), p.attention_gain * distance);
}

void run(const detkd::AttentionMseProblem& p) {
  const double total = detkd::sum_over_images(p.maps.batch, [&](int64_t image) { return work(p, image); });
  *p.maps.loss = static_cast<float>(total / static_cast<double>(p.maps.batch));
}

detkd::LossAndGradient attention_mse(const at::Tensor& student, const at::Tensor& teacher,
                                     const std::optional<at::Tensor>& weight, double temperature,
                                     double attention_gain, bool with_gradient) {
  return detkd::call_attention_mse(student, teacher, weight, temperature, attention_gain, with_gradient, &run);
}

}  // namespace

TORCH_LIBRARY_IMPL(detkd, CPU, m) { m.impl("attention_mse", &attention_mse); }
