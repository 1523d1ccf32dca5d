// detkd::attention_transfer on vectors, in namespace detkd::DETKD_ISA; see ops/problem.h for what it computes.
#pragma once

#include "bundle.h"
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

// Sum over channels of |f|^p for positions [begin, end) of one image; `map` has room for whole vectors.
//
// A few channels are summed in float32 before they join the sum in float64, whose conversions cost more than they do.
template <typename T, typename Plane>
void attention_map(const Plane& plane, int64_t channels, float p, int64_t begin, int64_t end, double* map) {
  std::fill(map + begin, map + end, 0.0);
  for_bundles<8>(0, channels, [&](auto at) DETKD_INLINE {
    const T *planes[at.size], *ahead[at.size];
    for (int k = 0; k < at.size; ++k) {
      planes[k] = plane(at.begin + k);
      ahead[k] = plane(std::min(at.begin + k + at.size, channels - 1));
    }
    for_vectors(begin, end, [&](int64_t i, int64_t n) DETKD_INLINE {
      V sum = set(0.0f);
      for (int k = 0; k < at.size; ++k) {
        const V x = load_part(planes[k] + i, n, 0.0f);
        __builtin_prefetch(ahead[k] + i);
        sum = p == 2 ? fma(x, x, sum) : sum + power_of(x, p);
      }
      Wide total = Wide::load(map + i);
      total.add(sum);
      total.store(map + i);
    });
  });
}

// Positions [begin, end) of the student's and the teacher's map of one image.
template <typename T>
void attention_maps_of(const AttentionTransferProblem& p, int64_t image, int64_t begin, int64_t end, double* student,
                       double* teacher) {
  const FeatureMaps& maps = p.maps;
  const auto student_at = [&](int64_t c) { return student_plane<T>(maps, image, c); };
  const auto teacher_at = [&](int64_t c) { return teacher_plane<T>(maps, image, c); };
  attention_map<T>(student_at, maps.channels, p.p, begin, end, student);
  attention_map<T>(teacher_at, p.teacher_channels, p.p, begin, end, teacher);
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

inline void attention_maps(const AttentionTransferProblem& p, int64_t image, int64_t begin, int64_t end, double* student,
                           double* teacher) {
  for_type<Half, BFloat16>(p.maps.type,
                           [&](auto x) { attention_maps_of<decltype(x)>(p, image, begin, end, student, teacher); });
}

inline void attention_slopes(const AttentionTransferProblem& p, int64_t image, int64_t begin, int64_t end,
                             const float* slope) {
  for_type<Half, BFloat16>(p.maps.type, [&](auto x) { attention_slopes_of<decltype(x)>(p, image, begin, end, slope); });
}

}  // namespace detkd::DETKD_ISA
