// detkd::kl_div on vectors, in namespace detkd::DETKD_ISA; see ops/problem.h for what it computes.
//
// e_t and e_s are the teacher's and the student's exponentials below their maxima. Loss and gradient need their
// difference d = e_s - e_t; it is taken from y = log(e_s / e_t) * T without cancellation, so that a student that nearly
// equals its teacher keeps full accuracy: with rho = sum d / sum e_t = (sum e_s) / (sum e_t) - 1,
//
//   loss     = T^2 (log1p(rho) - sum e_t y / (T sum e_t))
//   gradient = T (d - rho e_t) / sum e_s
#pragma once

#include "exponentials.h"

namespace detkd::DETKD_ISA {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

struct Tops {  // maxima of the logits, of one position in all lanes or of one in each
  V student, teacher, difference;
};

template <typename X>
struct Terms {
  X e_t, d, y;
};

// NaN or +inf among the logits makes d NaN, from where it spreads to all that is summed.
template <typename X>
DETKD_INLINE inline Terms<X> kl_terms(const X& s, const X& teacher, const Tops& top, const Rate& rate) {
  const X t = max(set(std::numeric_limits<float>::lowest()), teacher);  // -inf - -inf would be NaN
  Terms<X> out;
  out.y = (s - t) - top.difference;
  const X high = exp2(max(s - top.student, t - top.teacher), rate);
  out.d = with_sign_of(high * one_minus_exp2(negative_abs(out.y), rate), out.y);
  out.e_t = high - max(out.d, set(0.0f));
  return out;
}

struct Sums {
  V e_t, d, y;  // of e_t, d and e_t y

  static Sums zero() { return {set(0.0f), set(0.0f), set(0.0f)}; }

  template <int K>
  DETKD_INLINE void add(const Terms<Bundle<K>>& terms) {
    for (int k = 0; k < K; ++k) {
      const V of_teacher = terms.e_t.parts[k];
      e_t = e_t + of_teacher;
      d = d + terms.d.parts[k];
      // p_t = 0 counts 0, also where s is -inf.
      y = fma_where(less(set(0.0f), of_teacher), of_teacher, terms.y.parts[k], y);
    }
  }

  void add(const Sums& other) {
    e_t = e_t + other.e_t;
    d = d + other.d;
    y = y + other.y;
  }
};

// e_t and d wait for the gradient side by side.
template <int K>
DETKD_INLINE inline void keep(float* kept, At<K> at, const Terms<Bundle<K>>& terms) {
  for (int k = 0; k < K; ++k) {
    store(kept + (at.begin + k) * 2 * kWidth, terms.e_t.parts[k]);
    store(kept + (at.begin + k) * 2 * kWidth + kWidth, terms.d.parts[k]);
  }
}
template <int K>
DETKD_INLINE inline Terms<Bundle<K>> recall(const float* kept, At<K> at) {
  Terms<Bundle<K>> terms;
  for (int k = 0; k < K; ++k) {
    terms.e_t.parts[k] = load(kept + (at.begin + k) * 2 * kWidth);
    terms.d.parts[k] = load(kept + (at.begin + k) * 2 * kWidth + kWidth);
  }
  return terms;
}

template <typename X>
DETKD_INLINE inline X kl_slope(const Terms<X>& terms, V rho, V factor) {
  return (terms.d - rho * terms.e_t) * factor;
}

}  // namespace detkd::DETKD_ISA
