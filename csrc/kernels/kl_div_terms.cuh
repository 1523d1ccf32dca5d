// What the kernels of detkd::kl_div compute from logits, whatever their layout; cpu/kernels/kl_div_terms.h says why in
// this form. Beyond that, exponentials are summed for student and teacher apart, and the gradient is made of those with the
// smaller sum, e, and of the differences: where one sum is thousands of times the other, it does not round the other off.
//
//   gradient = T (e (1 / S_s - 1 / S_t) + d / max(S_s, S_t)),  1 / S_s - 1 / S_t = -sum d / (S_s S_t)
#pragma once

#include "reduce.cuh"

namespace detkd {

// Maxima of logits. -inf: none is finite; NaN: one is.
struct KlTops {
  float student, teacher;
};

struct HigherTops {
  __device__ KlTops operator()(KlTops a, KlTops b) const {
    return {max_or_nan(a.student, b.student), max_or_nan(a.teacher, b.teacher)};
  }
};

// Exponentials below the maxima, their difference, and log2 of their ratio.
struct KlTerms {
  float e_s, e_t, d, y;
  float low;  // of e_s and e_t
};

// Of logits that lie `student` and `teacher` below their maxima, in units of log 2 as y is.
__device__ inline KlTerms kl_terms(float student, float teacher, float y) {
  const float high = power_of_two(fmaxf(student, teacher));
  const Power below = power_below_one(fabsf(y));  // y is NaN where both logits are -inf, and high is 0
  const float low = high * below.power;
  return {y < 0.0f ? low : high, y > 0.0f ? low : high, copysignf(high * below.complement, y), y, low};
}

__device__ inline KlTerms kl_terms(float s, float t, KlTops top, float rate) {
  return kl_terms((s - top.student) * rate, (t - top.teacher) * rate, ((s - t) - (top.student - top.teacher)) * rate);
}

struct KlSums {
  float e_s, e_t, d, y;  // y: sum of e_t y

  __device__ void add(const KlTerms& term) {
    e_s += term.e_s;
    e_t += term.e_t;
    d += term.d;
    if (term.e_t > 0.0f) y = fmaf(term.e_t, term.y, y);  // p_t = 0 counts 0, also where the student is -inf
  }
  __device__ KlSums operator+(const KlSums& other) const {
    return {e_s + other.e_s, e_t + other.e_t, d + other.d, y + other.y};
  }
};

// Maxima, and sums relative to them, of the logits of a position that were seen so far.
struct KlOnline {
  KlTops top;
  KlSums sums;

  __device__ static KlOnline nothing() { return {{-infinity(), -infinity()}, {0.0f, 0.0f, 0.0f, 0.0f}}; }

  // Takes in a few logits at once, so that maxima are compared once.
  template <int kCount>
  __device__ void add(const float (&s)[kCount], const float (&t)[kCount], float rate) {
    KlTops high = top;
#pragma unroll
    for (int i = 0; i < kCount; ++i) high = HigherTops{}(high, {s[i], t[i]});
    if (high.student != top.student || high.teacher != top.teacher) rise_to(high, rate);
#pragma unroll
    for (int i = 0; i < kCount; ++i) sums.add(kl_terms(s[i], t[i], finite(top), rate));
  }

  // Makes the sums relative to higher maxima. y of all terms changes by the same, and the difference of exponentials
  // scaled by a and b becomes a d + (a - b) e_t: no cancellation here either.
  __device__ void rise_to(KlTops high, float rate) {
    const KlTops to = finite(high);
    // Where nothing finite has been seen there is nothing to scale.
    const KlTops from{top.student == -infinity() ? to.student : top.student,
                      top.teacher == -infinity() ? to.teacher : top.teacher};
    const KlTerms by = kl_terms(from.student, from.teacher, to, rate);
    top = high;
    const bool counts = by.e_t * sums.e_t > 0.0f;
    sums = {by.e_s * sums.e_s, by.e_t * sums.e_t, by.e_s * sums.d + by.d * sums.e_t,
            counts ? by.e_t * fmaf(sums.e_t, by.y, sums.y) : 0.0f};
  }

  // Any number will do for logits that are all -inf to lie below.
  __device__ static KlTops finite(KlTops top) {
    return {top.student == -infinity() ? 0.0f : top.student, top.teacher == -infinity() ? 0.0f : top.teacher};
  }
};

struct MergeOnline {
  float rate;

  __device__ KlOnline operator()(KlOnline a, KlOnline b) const {
    const KlTops high = HigherTops{}(a.top, b.top);
    a.rise_to(high, rate);
    b.rise_to(high, rate);
    return {high, a.sums + b.sums};
  }
};

// What the gradient of a position multiplies e and d by.
struct KlSlope {
  float of_e, of_d;

  __device__ static KlSlope throughout(float value) { return {not_a_number(), value}; }
  // `low` is the lower of e_s and e_t.
  __device__ float of(float low, float d) const {
    const float e = low + fmaxf(of_e > 0.0f ? d : -d, 0.0f);
    return isnan(of_e) ? of_d : fmaf(e, of_e, d * of_d);
  }
};

struct KlOutcome {
  float value;
  KlSlope slope;
};

__device__ inline float kl_rate(const KlDivProblem& p) { return kLog2E / p.temperature; }

__device__ inline KlOutcome kl_outcome(const KlOnline& all, float weight, const KlDivProblem& p) {
  const auto& [top, sums] = all;
  const float none = -infinity();
  if (weight == 0.0f || top.student == none || top.teacher == none) return {0.0f, KlSlope::throughout(0.0f)};
  if (!(fmaxf(top.student, top.teacher) < infinity()) || isnan(top.student) || isnan(top.teacher)) {
    return {not_a_number(), KlSlope::throughout(not_a_number())};
  }
  const float per_s = 1.0f / sums.e_s, per_t = 1.0f / sums.e_t, rho = sums.d * per_t;
  const float log = fabsf(rho) < 0.5f ? log1pf(rho) : logf(sums.e_s * per_t);
  const float value = fmaxf(log - kLn2 * sums.y * per_t, 0.0f) * p.temperature * p.temperature;
  const float factor = weight * p.temperature * p.gradient_scale;
  return {weight * value, {-rho * per_s * factor, fminf(per_s, per_t) * factor}};
}

}  // namespace detkd
