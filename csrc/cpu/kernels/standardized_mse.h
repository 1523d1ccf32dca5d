// detkd::standardized_mse on vectors, in namespace detkd::DETKD_ISA; see ops/problem.h for what it computes.
//
// A channel is read from memory once; mean, variance, difference and gradient then find it in the caches.
#pragma once

#include "feature_maps.h"

namespace detkd::DETKD_ISA {

struct Moments {
  double count = 0, mean = 0, squares = 0;  // squares: sum of squared differences from the mean

  // Chan, Golub, LeVeque 1979.
  void merge(double n, double other_mean, double other_squares) {
    const double delta = other_mean - mean, total = count + n;
    mean += delta * n / total;
    squares += other_squares + delta * delta * count * n / total;
    count = total;
  }
};

template <typename T>
void add_plane(const T* at, int64_t positions, Moments& moments) {
  for (int64_t begin = 0; begin < positions; begin += kPlanePart) {
    const int64_t end = std::min(begin + kPlanePart, positions);
    V sum = set(0.0f), squares = set(0.0f);
    for_vectors(begin, end, [&](int64_t i, int64_t n) { sum = sum + load_part(at + i, n, 0.0f); });
    const double mean = lane_sum(sum) / (end - begin);
    const float centre = static_cast<float>(mean);
    for_vectors(begin, end, [&](int64_t i, int64_t n) {
      const V x = load_part(at + i, n, centre) - set(centre);
      squares = fma(x, x, squares);
    });
    const double shift = mean - centre;
    moments.merge(end - begin, mean, lane_sum(squares) - shift * shift * (end - begin));
  }
}

// Subtracts a mean and multiplies. The mean comes in two parts: rounded to float32 it could miss by more than the values
// differ.
struct Standardizer {
  float high, low, per_deviation;

  Standardizer(const Moments& m, double eps) {
    const double deviation = std::max(std::sqrt(m.squares / m.count), eps) + eps;
    high = static_cast<float>(m.mean);
    low = static_cast<float>(m.mean - high);
    per_deviation = static_cast<float>(1.0 / deviation);
  }

  V centred(V x) const { return (x - set(high)) - set(low); }
  V apply(V x) const { return centred(x) * set(per_deviation); }
};

template <typename T>
inline V last_lanes(const Standardizer& of, const T* at, int64_t n) {
  float z[kWidth];
  store(z, of.apply(load(at, n, 0.0f)));
  return load(z, n, 0.0f);
}

template <typename T>
double standardized_mse_channel(const StandardizedMseProblem& p, int64_t channel) {
  const FeatureMaps& maps = p.maps;
  const auto student = [&](int64_t b) { return student_plane<T>(maps, b, channel); };
  const auto teacher = [&](int64_t b) { return teacher_plane<T>(maps, b, channel); };
  Moments moments_s, moments_t;
  for (int64_t b = 0; b < maps.batch; ++b) {
    add_plane(student(b), maps.positions, moments_s);
    add_plane(teacher(b), maps.positions, moments_t);
  }
  const Standardizer of_s(moments_s, p.eps), of_t(moments_t, p.eps);
  double sum = 0, squares = 0, dot = 0;  // of g = z_s - z_t, and with z_s
  for (int64_t b = 0; b < maps.batch; ++b) {
    for (int64_t begin = 0; begin < maps.positions; begin += kPlanePart) {
      V part_sum = set(0.0f), part_squares = part_sum, part_dot = part_sum;
      for_vectors(begin, std::min(begin + kPlanePart, maps.positions), [&](int64_t i, int64_t n) {
        // Lanes past the end hold the means, which count nothing.
        const V z_s = n == kWidth ? of_s.apply(load(student(b) + i)) : last_lanes(of_s, student(b) + i, n);
        const V z_t = n == kWidth ? of_t.apply(load(teacher(b) + i)) : last_lanes(of_t, teacher(b) + i, n);
        const V g = z_s - z_t;
        part_sum = part_sum + g;
        part_squares = fma(g, g, part_squares);
        part_dot = fma(g, z_s, part_dot);
      });
      sum += lane_sum(part_sum);
      squares += lane_sum(part_squares);
      dot += lane_sum(part_dot);
    }
  }
  if (maps.gradient == nullptr) return 0.5 * squares;

  const double deviation = std::sqrt(moments_s.squares / moments_s.count);
  const V mean = set(static_cast<float>(sum / moments_s.count));
  const V along = set(deviation > p.eps ? static_cast<float>(dot / (moments_s.count * deviation)) : 0.0f);
  const V factor = set(of_s.per_deviation * maps.gradient_scale);
  const bool past_caches = streams_maps<T>(maps, 0);
  for (int64_t b = 0; b < maps.batch; ++b) {
    T* gradient = gradient_plane<T>(maps, b, channel);
    for_vectors(0, maps.positions, [&](int64_t i, int64_t n) {
      const V centred = of_s.centred(load_part(student(b) + i, n, 0.0f));
      const V g = centred * set(of_s.per_deviation) - of_t.apply(load_part(teacher(b) + i, n, 0.0f));
      put(gradient + i, ((g - mean) - centred * along) * factor, n, past_caches);
    });
  }
  fence();
  return 0.5 * squares;
}

// Channels [begin, end); returns the sum of 1/2 (z_s - z_t)^2.
inline double standardized_mse(const StandardizedMseProblem& p, int64_t begin, int64_t end) {
  double total = 0;
  for (int64_t channel = begin; channel < end; ++channel) {
    total += for_type<Half, BFloat16>(p.maps.type, [&](auto x) { return standardized_mse_channel<decltype(x)>(p, channel); });
  }
  return total;
}

}  // namespace detkd::DETKD_ISA
