// detkd::kl_div on vectors, in namespace detkd::DETKD_ISA; see ops/problem.h for what it computes.
//
// e_t and e_s are the teacher's and the student's exponentials below their maxima, S_t and S_s their sums. Loss and
// gradient need their difference d = e_s - e_t; it is taken from y = log(e_s / e_t) * T without cancellation, so that a
// student that nearly equals its teacher keeps full accuracy: with rho = sum d / S_t = S_s / S_t - 1,
//
//   loss     = T^2 (log(S_s / S_t) - sum e_t y / (T S_t)),  |log(S_s / S_t)| = log1p(|sum d| / min(S_s, S_t))
//   gradient = T (d - rho e_t) / S_s
//
// S_s is S_t + sum d, which is nothing but rounding, and rho nothing but -1, where the student is far more peaked than its
// teacher; kl_div_group.h says what becomes of it there.
#pragma once

#include "exponentials.h"

namespace detkd::DETKD_ISA {

constexpr float kLowest = -std::numeric_limits<float>::infinity();
// Octaves. Below its maximum a teacher's exponential falls no further than 2^-kDepth, which is lost beside the maximum's 1;
// of maxima further apart than kApart, s - t would have lost digits that e_s needs.
constexpr float kDepth = 63, kApart = 64;

struct Tops {  // maxima of the logits, of one position in all lanes or of one in each
  V student, teacher, difference, floor;

  static Tops of(V student, V teacher, const Rate& rate) {
    return {student, teacher, student - teacher, teacher - set(kDepth) * rate.octave};
  }
  // Positions that kl_terms is not made for, as far as their maxima tell; also NaN.
  M are_apart(const Rate& rate) const {
    const V bound = set(kApart) * rate.octave;
    return differ(max(bound, abs(difference)), bound);
  }
};

template <typename X>
struct Terms {
  X e_t, d, y;
};

// NaN or +inf among the logits, or a student's -inf, makes y NaN or infinite, from where it spreads to its sum: such
// positions are wild_terms'.
template <typename X>
DETKD_INLINE inline Terms<X> kl_terms(const X& s, const X& teacher, const Tops& top, const Rate& rate) {
  const X t = max(top.floor, teacher);
  Terms<X> out;
  out.y = (s - t) - top.difference;
  out.e_t = exp2_within(t - top.teacher, rate);
  out.d = times_power_less_one(out.e_t, out.y, rate);
  return out;
}

// The same for any logits, from the larger of the two exponentials. NaN or +inf makes d NaN.
template <typename X>
DETKD_INLINE inline Terms<X> wild_terms(const X& s, const X& teacher, const Tops& top, const Rate& rate) {
  const X t = max(set(std::numeric_limits<float>::lowest()), teacher);  // -inf - -inf would be NaN
  Terms<X> out;
  out.y = (s - t) - top.difference;
  const X high = exp2(max(s - top.student, t - top.teacher), rate);
  const Power<X> parts = split_by_power(high, negative_abs(out.y), rate);
  out.d = with_sign_of(parts.complement, out.y);
  // Not high - d: a teacher's exponentials far below the student's would keep nothing but its rounding.
  out.e_t = where_negative(out.y, high, parts.power);
  return out;
}

// e_s without e_t.
template <typename X>
DETKD_INLINE inline X student_exponential(const X& s, const Tops& top, const Rate& rate) {
  return exp2(s - top.student, rate);
}

struct Sums {
  V e_t, d, y;  // of e_t, d and e_t y

  static Sums zero() { return {set(0.0f), set(0.0f), set(0.0f)}; }

  template <int K>
  DETKD_INLINE void add(const Terms<Bundle<K>>& terms) {
    for (int k = 0; k < K; ++k) {
      e_t = e_t + terms.e_t.parts[k];
      d = d + terms.d.parts[k];
      y = fma(terms.e_t.parts[k], terms.y.parts[k], y);
    }
  }

  template <int K>
  DETKD_INLINE void add_wild(const Terms<Bundle<K>>& terms) {
    for (int k = 0; k < K; ++k) {
      const V of_teacher = terms.e_t.parts[k];
      e_t = e_t + of_teacher;
      d = d + terms.d.parts[k];
      // p_t = 0 counts 0, also where s is -inf.
      y = fma_where(less(set(0.0f), of_teacher), of_teacher, terms.y.parts[k], y);
    }
  }

  // Sums of which a term is not finite: a student's -inf, or NaN or +inf.
  M are_infinite() const { return unordered(y - y, y - y); }

  static Sums select(M mask, const Sums& yes, const Sums& no) {
    return {DETKD_ISA::select(mask, yes.e_t, no.e_t), DETKD_ISA::select(mask, yes.d, no.d),
            DETKD_ISA::select(mask, yes.y, no.y)};
  }

  Sums operator+(const Sums& other) const { return {e_t + other.e_t, d + other.d, y + other.y}; }
};

constexpr int64_t kBlock = 32;  // terms of a running sum

// The sum over terms [0, end), end > 0, of which block(begin, end) sums some: added in pairs, as a single running sum of
// thousands that has met the largest would round off what comes after it.
template <typename Block>
DETKD_INLINE inline auto sum_blocks(int64_t end, const Block& block) {
  decltype(block(0, end)) waiting[48];  // sums of 2^k blocks each, k falling
  int count = 0;
  for (int64_t begin = 0;; begin += kBlock) {
    auto sums = block(begin, std::min(begin + kBlock, end));
    const bool last = begin + kBlock >= end;
    for (int64_t done = begin / kBlock; count > 0 && (last || done % 2 == 1); done /= 2) sums = sums + waiting[--count];
    if (last) return sums;
    waiting[count++] = sums;
  }
}

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
