// detkd::attention_mse on vectors, in namespace detkd::DETKD_ISA; see ops/problem.h for what it computes.
#pragma once

#include "feature_maps.h"

namespace detkd::DETKD_ISA {

// Sums of |f| of one image over a piece of its positions: over channels for each position, over the piece for each channel.
template <typename T, typename Plane>
void absolute_sums(const Plane& plane, int64_t channels, int64_t begin, int64_t end, double* by_position,
                   double* by_channel) {
  constexpr int64_t kStrip = 4 * kWidth;
  std::fill_n(by_channel, channels, 0.0);
  for (int64_t strip = begin; strip < end; strip += kStrip) {
    const int64_t width = std::min(kStrip, end - strip);
    Wide sums[4] = {Wide::zero(), Wide::zero(), Wide::zero(), Wide::zero()};
    for (int64_t c = 0; c < channels; ++c) {
      const T* from = plane(c) + strip;
      const T* ahead = plane(std::min(c + kAhead, channels - 1)) + strip;
      V across = set(0.0f);
      for (int k = 0; k * kWidth < width; ++k) {
        __builtin_prefetch(ahead + k * kWidth);
        const V x = abs(load_part(from + k * kWidth, std::min<int64_t>(kWidth, width - k * kWidth), 0.0f));
        sums[k].add(x);
        across = across + x;
      }
      by_channel[c] += total_of(across);
    }
    double values[kStrip];
    for (int k = 0; k < 4; ++k) sums[k].store(values + k * kWidth);
    std::copy_n(values, width, by_position + strip);
  }
}

template <typename T>
void focal_sums_of(const AttentionMseProblem& p, int64_t image, int64_t begin, int64_t end, const FocalSums& out) {
  const FeatureMaps& maps = p.maps;
  absolute_sums<T>([&](int64_t c) { return student_plane<T>(maps, image, c); }, maps.channels, begin, end,
                   out.student_positions, out.student_channels);
  absolute_sums<T>([&](int64_t c) { return teacher_plane<T>(maps, image, c); }, maps.channels, begin, end,
                   out.teacher_positions, out.teacher_channels);
}

// n times the softmax of n values / temperature. Differences are taken in float64, before they are rounded.
inline void scaled_softmax(const double* values, int64_t n, double temperature, float* out) {
  const double top = *std::max_element(values, values + n);
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<float>((values[i] - top) * (1.4426950408889634 / temperature));
  double sum = 0;
  for_vectors(0, n, [&](int64_t i, int64_t lanes) {
    const V e = exp2(load_part(out + i, lanes, -std::numeric_limits<float>::infinity()), Rate(1.0f));
    store_part(out + i, e, lanes);
    sum += lane_sum(e);
  });
  const V scale = set(static_cast<float>(n / sum));
  for_vectors(0, n, [&](int64_t i, int64_t lanes) {
    store_part(out + i, load_part(out + i, lanes, 0.0f) * scale, lanes);
  });
}

// Weighted squared error of one image over positions [begin, end), and the gradient there.
template <typename T>
double focal_errors_of(const AttentionMseProblem& p, int64_t image, int64_t begin, int64_t end, const FocalWeights& w) {
  const FeatureMaps& maps = p.maps;
  const V zero = set(0.0f), scale = set(maps.gradient_scale);
  const bool past_caches = streams_maps<T>(maps, begin);
  double total = 0;
  for (int64_t c = 0; c < maps.channels; ++c) {
    const T* student = student_plane<T>(maps, image, c);
    const T* teacher = teacher_plane<T>(maps, image, c);
    T* gradient = maps.gradient == nullptr ? nullptr : gradient_plane<T>(maps, image, c);
    const V of_channel = set(w.channels[c]), slope_c = set(w.channel_slopes[c]);
    V sum = zero;
    for_vectors(begin, end, [&](int64_t i, int64_t n) {
      const V s = load_part(student + i, n, 0.0f), d = s - load_part(teacher + i, n, 0.0f);
      const V weight = load_part(w.positions + i, n, 0.0f) * of_channel, error = weight * d;
      // A weight of 0 counts 0, whatever it covers.
      const V masked = select(equal(weight, zero), zero, error);
      sum = fma_where(differ(weight, zero), masked, d, sum);
      if (gradient == nullptr) return;
      const V slope = select(equal(s, zero), zero, with_sign_of(set(1.0f), s));
      const V attention = slope * (slope_c + load_part(w.position_slopes + i, n, 0.0f));
      put(gradient + i, (masked + masked + attention) * scale, n, past_caches);
    });
    total += lane_sum(sum);
  }
  fence();
  return total;
}

inline void focal_sums(const AttentionMseProblem& p, int64_t image, int64_t begin, int64_t end, const FocalSums& out) {
  for_type<Half, BFloat16>(p.maps.type, [&](auto x) { focal_sums_of<decltype(x)>(p, image, begin, end, out); });
}

inline double focal_errors(const AttentionMseProblem& p, int64_t image, int64_t begin, int64_t end,
                           const FocalWeights& weights) {
  return for_type<Half, BFloat16>(p.maps.type, [&](auto x) { return focal_errors_of<decltype(x)>(p, image, begin, end, weights); });
}

}  // namespace detkd::DETKD_ISA
