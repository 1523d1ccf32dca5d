// detkd::kl_div on vectors, in namespace detkd::DETKD_ISA; see ops/problem.h for what it computes.
//
// e_t and e_s are the teacher's and the student's exponentials below their maxima. Loss and gradient need their
// difference d = e_s - e_t; it is taken from y = log2(e_s / e_t) without cancellation, so that a student that nearly
// equals its teacher keeps full accuracy: with rho = sum d / sum e_t = (sum e_s) / (sum e_t) - 1,
//
//   loss     = T^2 (log1p(rho) - ln 2 * sum e_t y / sum e_t)
//   gradient = T (d - rho e_t) / sum e_s
//
// Positions are worked on in groups of kWidth, one a lane, so that what happens once a position (logarithm, division) is
// vectorised too. Between the passes over its classes e_t and d wait in a scratch buffer; a group whose buffer would
// leave the caches computes them twice.
#pragma once

#include "exponentials.h"
#include "vectors.h"

namespace detkd::DETKD_ISA {

constexpr float kLowest = -std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

constexpr int64_t kKept = 40960;  // logits of a group whose e_t and d are kept: 320 KiB

struct Tops {  // maxima of the logits, of one position in all lanes or of one in each
  V student, teacher, difference;
};

struct Terms {
  V e_t, d, y;
  M nan;
};

inline Terms kl_terms(V s, V t, const Tops& top, V rate) {
  const V below_s = s - top.student, below_t = t - top.teacher;
  Terms out;
  out.nan = unordered(below_s, below_t);
  out.y = ((s - t) - top.difference) * rate;
  const V high = exp2(max(below_s, below_t) * rate);
  const V gap = high * one_minus_exp2(negative(abs(out.y)));
  out.d = with_sign_of(gap, out.y);
  out.e_t = subtract_where(less(set(0.0f), out.y), high, gap);
  return out;
}

inline V kl_slope(V e_t, V d, V rho, V factor) { return (d - rho * e_t) * factor; }

struct Sums {
  V e_t, d, y;
  M nan;

  static Sums zero() { return {set(0.0f), set(0.0f), set(0.0f), none()}; }

  void add(const Terms& term) {
    e_t = e_t + term.e_t;
    d = d + term.d;
    y = fma_where(less(set(0.0f), term.e_t), term.e_t, term.y, y);  // p_t = 0 counts 0, also where s is -inf
    nan = either(nan, term.nan);
  }
};

struct Outcome {
  V value, rho, factor;  // gradient = factor * (d - rho * e_t)
};

// A lane that does not count (weight 0, or no finite logit) has value and gradient 0.
inline Outcome kl_outcome(const Sums& sums, M counts, V weight, const KlDivProblem& p) {
  const V zero = set(0.0f), per_t = set(1.0f) / sums.e_t;
  const V rho = sums.d * per_t;
  const V value = max(log1p(rho) - set(0.693147181f) * sums.y * per_t, zero) * set(p.temperature * p.temperature);
  const V factor = set(p.temperature * p.gradient_scale) / (sums.e_t + sums.d);
  Outcome out;
  out.value = select(counts, select(sums.nan, set(kNan), value * weight), zero);
  out.rho = select(counts, rho, zero);
  out.factor = select(counts, select(sums.nan, set(kNan), factor * weight), zero);
  return out;
}

template <typename T>
bool has_nan(const T* at, int64_t n, int64_t stride) {
  for (int64_t c = 0; c < n; ++c) {
    const V x = load(at + c * stride, 1, 0.0f);
    if (lane(unordered(x, x), 0)) return true;
  }
  return false;
}

// See streams(); gradients of `run` values lie one behind the other.
template <typename T>
bool streams_logits(const KlDivProblem& p, int64_t run) {
  bool aligned = run % kWidth == 0;
  for (int d = 0; d < p.outer.ndim; ++d) aligned = aligned && p.outer.gradient[d] % kWidth == 0;
  return aligned && streams<T>(p.gradient, p.outer.count * p.inner * p.classes);
}

// Sum of the first `count` lanes; each goes to p.loss[place(lane)] where the loss is not reduced.
template <typename Place>
double deliver(V value, int count, const KlDivProblem& p, const Place& place) {
  float values[kWidth];
  store(values, value);
  double total = 0;
  for (int i = 0; i < count; ++i) {
    total += values[i];
    if (!p.reduced) p.loss[place(i)] = values[i];
  }
  return total;
}

}  // namespace detkd::DETKD_ISA
