// detkd::binary_kl on vectors, in namespace detkd::DETKD_ISA; see ops/problem.h for what it computes.
//
// With x = s / T, z = t / T, everything is written in e_x = exp(-|x|) and e_z = exp(-|z|), which can't overflow, and in
// their difference, taken without cancellation. The small sides of the probabilities are e / (1 + e), and
//
//   KL  = log1p((e_x - e_z) / (1 + e_z)) + small_z (|x| - |z|) + [signs differ] |x| (1 - e_z) / (1 + e_z)
//   BCE = log1p(e_x) + |x| * (signs differ ? 1 - small_z : small_z)
//   |b - a| = (signs differ ? 1 - e_x e_z : |e_x - e_z|) / ((1 + e_x) (1 + e_z))
#pragma once

#include <type_traits>

#include "exponentials.h"
#include "vectors.h"

namespace detkd::DETKD_ISA {

struct Bernoulli {
  V divergence, gap, spread;  // D, |b - a|, b (1 - b)
};

// 0 * infinity counts 0: a probability of 0 times its logarithm.
inline V add_product(V sum, V factor, V by) { return fma_where(differ(factor, set(0.0f)), factor, by, sum); }

template <bool kBrief, bool kEntropy>
inline Bernoulli bernoulli(V s, V t, V per_temperature, const Rate& rate) {
  const V one = set(1.0f), zero = set(0.0f), x = s * per_temperature, z = t * per_temperature;
  const V ax = abs(x);
  const V beyond = abs(s) - abs(t), farther = beyond * per_temperature;  // |x| - |z|: exact where they are close
  const M opposite = less(x * z, zero), x_nearer = less(abs(s), abs(t));
  // Two infinite logits, whose difference is NaN, have e_x = e_z = 0 whatever the ratio.
  const Power<V> near = power_of_two<kBrief>(max(negative_abs(s), negative_abs(t)), rate);
  const Power<V> ratio = power_of_two<kBrief>(max(negative_abs(beyond), rate.lowest), rate);
  const V large = near.power, small = large * ratio.power, difference = large * ratio.complement;
  const V e_x = select(x_nearer, large, small), e_z = select(x_nearer, small, large);
  const V both = one / ((one + e_x) * (one + e_z));
  const V per_z = both * (one + e_x), per_x = both * (one + e_z), small_z = e_z * per_z;
  Bernoulli out;
  if constexpr (kEntropy) {
    out.divergence = add_product(log1p<kBrief>(e_x), select(opposite, per_z, small_z), ax);
  } else {
    const V apart = select(opposite, (one - e_z) * per_z, zero);
    const V log = log1p<kBrief>(select(x_nearer, difference, negative(difference)) * per_z);
    out.divergence = max(add_product(add_product(log, small_z, farther), apart, ax), zero);
  }
  const V across = fma(large * large, ratio.complement, near.complement * (one + large));  // 1 - e_x e_z
  out.gap = select(opposite, across, difference) * both;
  out.spread = e_x * per_x * per_x;
  return out;
}

struct Modulated {
  V value, slope;  // D |b - a|^beta, and its derivative's absolute value
};

// kBeta 2 stands for any other exponent than 0 and 1.
template <int kBeta>
inline Modulated modulate(const Bernoulli& d, V beta) {
  if constexpr (kBeta == 0) return {d.divergence, d.gap};
  const M apart = less(set(0.0f), d.gap);
  if constexpr (kBeta == 1) {
    return {d.divergence * d.gap, select(apart, fma(d.gap, d.gap, d.divergence * d.spread), set(0.0f))};
  }
  const V power = select(apart, exp2(min(beta * log2(d.gap), set(0.0f)), Rate(1.0f)), set(0.0f));
  const V slope = fma(d.gap, power, d.divergence * beta * power / d.gap * d.spread);
  return {d.divergence * power, select(apart, slope, set(0.0f))};
}

template <typename T>
class BinaryKlRun {
 public:
  BinaryKlRun(const BinaryKlProblem& problem, const Offsets& at)
      : p(problem),
        student(static_cast<const T*>(p.student) + at.student),
        teacher(static_cast<const T*>(p.teacher) + at.teacher),
        gradient(p.gradient == nullptr ? nullptr : static_cast<T*>(p.gradient) + at.gradient),
        weight(p.weight == nullptr ? nullptr : p.weight + at.weight),
        loss(p.loss + at.loss) {}

  // Logits [begin, end) of the run.
  template <int kBeta, bool kEntropy>
  double sum(int64_t begin, int64_t end) const {
    V total = set(0.0f);
    for_vectors(begin, end, [&](int64_t i, int64_t n) { total = total + step<kBeta, kEntropy>(i, n); });
    return lane_sum(total);
  }

 private:
  template <int kBeta, bool kEntropy>
  V step(int64_t i, int64_t n) const {
    const V s = load_part(student + i, n, 0.0f), t = load_part(teacher + i, n, 0.0f);
    const V w = weights(i, n), temperature = set(p.temperature), zero = set(0.0f);
    const Rate rate(1.44269504f / p.temperature);
    const Modulated m = modulate<kBeta>(bernoulli<kBrief, kEntropy>(s, t, set(1.0f / p.temperature), rate), set(p.beta));
    const M counts = differ(w, zero);
    const V known = select(unordered(s, t), set(std::numeric_limits<float>::quiet_NaN()), w);
    const V value = select(counts, m.value * (temperature * temperature * known), zero);
    if (gradient != nullptr) {
      const V slope = with_sign_of(m.slope, s - t) * (set(p.temperature * p.gradient_scale) * known);
      store_part(gradient + i, select(counts, slope, zero), n);
    }
    if (!p.reduced) deliver(value, i, n);
    return value;
  }

  V weights(int64_t i, int64_t n) const {
    if (weight == nullptr) return load_part(kOnes, n, 0.0f);
    if (p.weight_inner == 1) return load_part(weight + i, n, 0.0f);
    float values[kWidth] = {};
    for (int64_t k = 0; k < n; ++k) values[k] = weight[(i + k) * p.weight_inner];
    return load(values);
  }

  void deliver(V value, int64_t i, int64_t n) const {
    float values[kWidth];
    store(values, value);
    for (int64_t k = 0; k < n; ++k) loss[(i + k) * p.loss_inner] = values[k];
  }

  static constexpr bool kBrief = std::is_same_v<T, BFloat16>;  // whose logits have 8 bits
  static constexpr float kOnes[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

  const BinaryKlProblem& p;
  const T* student;
  const T* teacher;
  T* gradient;
  const float* weight;
  float* loss;
};

template <typename T>
double binary_kl_of(const BinaryKlProblem& p, int64_t begin, int64_t end) {
  double total = 0;
  constexpr int64_t kBlock = 1024;  // summed in float32, then in float64
  for (int64_t at = begin; at < end;) {
    const int64_t first = at % p.inner, last = std::min({first + kBlock, p.inner, first + end - at});
    const BinaryKlRun<T> run(p, offsets(p.outer, at / p.inner));
    if (p.beta == 0) {
      total += p.cross_entropy ? run.template sum<0, true>(first, last) : run.template sum<0, false>(first, last);
    } else if (p.beta == 1) {
      total += p.cross_entropy ? run.template sum<1, true>(first, last) : run.template sum<1, false>(first, last);
    } else {
      total += p.cross_entropy ? run.template sum<2, true>(first, last) : run.template sum<2, false>(first, last);
    }
    at += last - first;
  }
  return total;
}

// Logits [begin, end), counted along inner first; returns the unscaled sum of their values.
inline double binary_kl(const BinaryKlProblem& p, int64_t begin, int64_t end) {
  return for_type<Half, BFloat16>(p.type, [&](auto x) { return binary_kl_of<decltype(x)>(p, begin, end); });
}

}  // namespace detkd::DETKD_ISA
