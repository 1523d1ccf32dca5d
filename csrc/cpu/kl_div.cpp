// CPU kernel of detkd::kl_div_rows: portable C++, parallel over positions.
//
// The input is seen as [outer, classes, inner]. Positions that are neighbours along inner are worked on together, so that
// strided class dimensions ([B, C, A] of a detection head) are read line by line instead of with a jump for each class.
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "../ops/kl_div.h"

namespace {

constexpr int64_t kTile = 16;  // positions worked on together: one cache line of float32
constexpr float kLowest = -std::numeric_limits<float>::infinity();

struct Shape {
  int64_t outer, classes, inner;
};

// One tile of neighbouring positions: [classes] rows of `width` values, `inner` apart.
template <typename scalar_t>
void kl_div_tile(const scalar_t* student, const scalar_t* teacher, Shape shape, int64_t width, float temperature,
                 float* loss, scalar_t* gradient) {
  float top_s[kTile], top_t[kTile], sum_s[kTile] = {}, sum_t[kTile] = {}, dot[kTile] = {};
  bool nan[kTile] = {};
  std::fill_n(top_s, kTile, kLowest);
  std::fill_n(top_t, kTile, kLowest);
  const float scale = 1.0f / temperature;
  for (int64_t c = 0; c < shape.classes; ++c) {
    for (int64_t i = 0; i < width; ++i) {
      const float s = static_cast<float>(student[c * shape.inner + i]) * scale;
      const float t = static_cast<float>(teacher[c * shape.inner + i]) * scale;
      top_s[i] = std::max(top_s[i], s);
      top_t[i] = std::max(top_t[i], t);
      nan[i] |= std::isnan(s) || std::isnan(t);
    }
  }
  for (int64_t c = 0; c < shape.classes; ++c) {
    for (int64_t i = 0; i < width; ++i) {
      const float s = static_cast<float>(student[c * shape.inner + i]) * scale - top_s[i];
      const float t = static_cast<float>(teacher[c * shape.inner + i]) * scale - top_t[i];
      const float weight = std::exp(t);
      sum_s[i] += std::exp(s);
      sum_t[i] += weight;
      if (weight > 0) dot[i] += weight * (t - s);  // p_t = 0 counts 0, also where the student is -inf
    }
  }
  for (int64_t i = 0; i < width; ++i) {
    // A row of -inf alone has no distribution: it counts 0.
    const bool empty = top_s[i] == kLowest || top_t[i] == kLowest;
    const float value = dot[i] / sum_t[i] - (std::log(sum_t[i]) - std::log(sum_s[i]));
    loss[i] = nan[i] ? std::numeric_limits<float>::quiet_NaN() : empty ? 0.0f : temperature * temperature * value;
  }
  if (gradient == nullptr) return;
  for (int64_t c = 0; c < shape.classes; ++c) {
    for (int64_t i = 0; i < width; ++i) {
      const int64_t at = c * shape.inner + i;
      const bool empty = top_s[i] == kLowest || top_t[i] == kLowest;
      const float p_s = std::exp(static_cast<float>(student[at]) * scale - top_s[i]) / sum_s[i];
      const float p_t = std::exp(static_cast<float>(teacher[at]) * scale - top_t[i]) / sum_t[i];
      const float slope = temperature * (p_s - p_t);
      gradient[at] = static_cast<scalar_t>(nan[i] ? std::numeric_limits<float>::quiet_NaN() : empty ? 0.0f : slope);
    }
  }
}

std::tuple<at::Tensor, at::Tensor> kl_div_rows(const at::Tensor& student, const at::Tensor& teacher, int64_t dim,
                                               double temperature, bool with_gradient) {
  const auto call = detkd::prepare_kl_div(student, teacher, dim, with_gradient);
  const Shape shape{call.outer, call.classes, call.inner};
  if (call.student.numel() == 0) return {call.loss, call.gradient};

  const int64_t tiles = (shape.inner + kTile - 1) / kTile;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, call.student.scalar_type(), "kl_div_rows", [&] {
    const scalar_t* ps = call.student.const_data_ptr<scalar_t>();
    const scalar_t* pt = call.teacher.const_data_ptr<scalar_t>();
    float* pl = call.loss.mutable_data_ptr<float>();
    scalar_t* pg = with_gradient ? call.gradient.mutable_data_ptr<scalar_t>() : nullptr;
    const int64_t grain = std::max<int64_t>(1, 16384 / (shape.classes * std::min(shape.inner, kTile)));
    at::parallel_for(0, shape.outer * tiles, grain, [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) {
        const int64_t row = item / tiles, first = item % tiles * kTile;
        const int64_t offset = row * shape.classes * shape.inner + first;
        kl_div_tile(ps + offset, pt + offset, shape, std::min(kTile, shape.inner - first),
                    static_cast<float>(temperature), pl + row * shape.inner + first,
                    pg == nullptr ? nullptr : pg + offset);
      }
    });
  });
  return {call.loss, call.gradient};
}

}  // namespace

TORCH_LIBRARY_IMPL(detkd, CPU, m) { m.impl("kl_div_rows", &kl_div_rows); }
