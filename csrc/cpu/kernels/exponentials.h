// Exponentials and logarithms on vectors, in namespace detkd::DETKD_ISA. Relative errors are below 5e-7, or where kBrief is
// given 3e-5: enough for bfloat16, whose rounding is 100 times that. The polynomials are minimax fits in relative error; brief
// ones are exact in first order, so that what cancels there does not leave their error.
#pragma once

#include "bundle.h"

namespace detkd::DETKD_ISA {

// A factor that turns numbers into exponents of 2, its inverse, and the number from which on powers are 0.
struct Rate {
  V factor, octave, lowest;

  explicit Rate(float factor) : factor(set(factor)), octave(set(1.0f / factor)), lowest(set(-127.0f / factor)) {}
};

template <typename X>
struct Octaves {
  X whole, fraction;  // 2^n, and f in [-1/2, 1/2]: together n + f
};

// For x between `lowest` and 127 octaves. Adding 1.5 * 2^23 leaves no room for a fraction; with 127 more, the lowest bits
// hold the exponent field of 2^n. That of 2^-127 is the field of 0.
template <typename X>
DETKD_INLINE inline Octaves<X> octaves(const X& x, const Rate& rate) {
  const V shift = set(12582912.0f + 127.0f);
  const X shifted = fma(x, rate.factor, shift);
  return {exponent_from(shifted), fma(x, rate.factor, shift - shifted)};
}

// (2^f - 1) / f for |f| <= 1/2.
template <bool kBrief = false, typename X>
DETKD_INLINE inline X power_slope(const X& f) {
  if constexpr (kBrief) {
    const X p = fma(fma(set(0.00960505f), f, set(0.0557803866f)), f, set(0.240234447f));
    return fma(p, f, set(0.693147181f));
  }
  X p = fma(set(0.00133335387f), f, set(0.00966624543f));
  p = fma(p, f, set(0.0555050021f));
  p = fma(p, f, set(0.240223513f));
  return fma(p, f, set(0.693147144f));
}

// 2^(x * rate) for x between `lowest` and 127 octaves; NaN for NaN.
template <typename X>
DETKD_INLINE inline X exp2_within(const X& x, const Rate& rate) {
  const Octaves<X> at = octaves(x, rate);
  return fma(power_slope(at.fraction), at.fraction, set(1.0f)) * at.whole;
}

// The same for any x <= 0; 0 for -inf.
template <typename X>
DETKD_INLINE inline X exp2(const X& x, const Rate& rate) {
  return exp2_within(max(rate.lowest, x), rate);
}

// a (2^(x * rate) - 1) for x up to 127 octaves, accurate relative to itself, also where x is small; -a for -inf, NaN for
// NaN.
template <typename X>
DETKD_INLINE inline X times_power_less_one(const X& a, const X& x, const Rate& rate) {
  const Octaves<X> at = octaves(max(rate.lowest, x), rate);
  const X near = a * at.whole;
  return fma(near, power_slope(at.fraction) * at.fraction, near - a);
}

template <typename X>
struct Power {
  X power, complement;  // a 2^x and a (1 - 2^x)
};

// a 2^(x * rate) and a (1 - 2^(x * rate)) for x <= 0: both accurate relative to themselves, also where x is small. -inf has
// power 0, NaN stays NaN.
template <bool kBrief = false, typename X>
DETKD_INLINE inline Power<X> split_by_power(const X& a, const X& x, const Rate& rate) {
  const Octaves<X> at = octaves(max(rate.lowest, x), rate);
  const X more = power_slope<kBrief>(at.fraction) * at.fraction, near = a * at.whole;
  return {fma(near, more, near), (a - near) - near * more};
}

template <bool kBrief>
inline Power<V> power_of_two(V x, const Rate& rate) {
  return split_by_power<kBrief>(set(1.0f), x, rate);
}

// log(m) + more for m in [3/4, 3/2), f = m - 1.
template <bool kBrief = false>
inline V log_near_one(V f, V more) {
  V p;
  if constexpr (kBrief) {
    p = fma(set(-0.108375360f), f, set(0.202934140f));
    p = fma(p, f, set(-0.254037890f));
    p = fma(p, f, set(0.333507600f));
  } else {
    p = fma(set(0.0571865864f), f, set(-0.122717799f));
    p = fma(p, f, set(0.149312132f));
    p = fma(p, f, set(-0.167752116f));
    p = fma(p, f, set(0.199788610f));
    p = fma(p, f, set(-0.249966369f));
    p = fma(p, f, set(0.333335450f));
  }
  const V square = f * f;
  return f + fma(p * f, square, fma(set(-0.5f), square, more));
}

// log(1 + x) for x > -1, accurate also where x is small.
template <bool kBrief = false>
inline V log1p(V x) {
  const V u = x + set(1.0f);
  V m, n;
  split(u, m, n);
  // What rounding took from 1 + x, divided by u; that matters near u = 1 alone, where 2 - u is 1 / u.
  const V lost = (x - (u - set(1.0f))) * max(set(2.0f) - u, set(0.0f));
  return fma(n, set(0.693147181f), log_near_one<kBrief>(m - set(1.0f), lost));
}

// log2(x) for normal x > 0.
inline V log2(V x) {
  V m, n;
  split(x, m, n);
  return fma(log_near_one(m - set(1.0f), set(0.0f)), set(1.44269504f), n);
}

}  // namespace detkd::DETKD_ISA
