// detkd::attention_transfer on vectors, in namespace detkd::DETKD_ISA; see ops/problem.h for what it computes.
#pragma once

#include "feature_maps.h"

namespace detkd::DETKD_ISA {

// |x|^p; exponents other than 1 and 2 are rare, and not worth a vector power.
inline V power_of(V x, float p) {
  if (p == 2) return x * x;
  if (p == 1) return abs(x);
  float lanes[kWidth];
  store(lanes, abs(x));
  for (float& lane : lanes) lane = std::pow(lane, p);
  return load(lanes);
}

// Sum over channels of |f|^p for positions [begin, end) of one image.
template <typename T, typename Plane>
void attention_map(const Plane& plane, int64_t channels, float p, int64_t begin, int64_t end, double* map) {
  constexpr int64_t kStrip = 4 * kWidth;
  for (int64_t strip = begin; strip < end; strip += kStrip) {
    const int64_t width = std::min(kStrip, end - strip);
    Wide sums[4] = {Wide::zero(), Wide::zero(), Wide::zero(), Wide::zero()};
    for (int64_t c = 0; c < channels; ++c) {
      const T* from = plane(c) + strip;
      const T* ahead = plane(std::min(c + kAhead, channels - 1)) + strip;
      for (int k = 0; k * kWidth < width; ++k) {
        __builtin_prefetch(ahead + k * kWidth);
        const V x = load_part(from + k * kWidth, std::min<int64_t>(kWidth, width - k * kWidth), 0.0f);
        p == 2 ? sums[k].add_square(x) : sums[k].add(power_of(x, p));
      }
    }
    double values[kStrip];
    for (int k = 0; k < 4; ++k) sums[k].store(values + k * kWidth);
    std::copy_n(values, width, map + strip);
  }
}

// Positions [begin, end) of the maps of one image, which lie one behind the other in `maps`.
template <typename T>
void attention_maps_of(const AttentionTransferProblem& p, int64_t image, int64_t begin, int64_t end, double* maps) {
  attention_map<T>([&](int64_t c) { return student_plane<T>(p.maps, image, c); }, p.maps.channels, p.p, begin, end, maps);
  attention_map<T>([&](int64_t c) { return teacher_plane<T>(p.maps, image, c); }, p.teacher_channels, p.p, begin, end,
                   maps + p.maps.positions);
}

// Gradient at positions [begin, end) of one image: slope * |f|^(p - 1) sign(f).
template <typename T>
void attention_slopes_of(const AttentionTransferProblem& p, int64_t image, int64_t begin, int64_t end,
                         const float* slope) {
  const bool past_caches = streams_maps<T>(p.maps, begin);
  for (int64_t c = 0; c < p.maps.channels; ++c) {
    const T* student = student_plane<T>(p.maps, image, c);
    T* gradient = gradient_plane<T>(p.maps, image, c);
    for_vectors(begin, end, [&](int64_t i, int64_t n) {
      const V x = load_part(student + i, n, 0.0f), by = load_part(slope + i, n, 0.0f);
      const V magnitude = p.p == 2 ? abs(x) : select(equal(x, set(0.0f)), set(0.0f), power_of(x, p.p - 1));
      put(gradient + i, with_sign_of(magnitude, x) * by, n, past_caches);
    });
  }
  fence();
}

inline void attention_maps(const AttentionTransferProblem& p, int64_t image, int64_t begin, int64_t end, double* maps) {
  for_type<Half, BFloat16>(p.maps.type, [&](auto x) { attention_maps_of<decltype(x)>(p, image, begin, end, maps); });
}

inline void attention_slopes(const AttentionTransferProblem& p, int64_t image, int64_t begin, int64_t end,
                             const float* slope) {
  for_type<Half, BFloat16>(p.maps.type, [&](auto x) { attention_slopes_of<decltype(x)>(p, image, begin, end, slope); });
}

}  // namespace detkd::DETKD_ISA
