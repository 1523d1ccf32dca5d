// Exponentials and logarithms on vectors, in namespace detkd::DETKD_ISA. Relative errors are below 5e-7.
// The polynomials are minimax fits in relative error.
#pragma once

namespace detkd::DETKD_ISA {

// 2^f - 1 for |f| <= 1/2.
inline V fraction(V f) {
  V p = set(0.00133335387f);
  p = fma(p, f, set(0.00966624543f));
  p = fma(p, f, set(0.0555050021f));
  p = fma(p, f, set(0.240223513f));
  p = fma(p, f, set(0.693147144f));
  return p * f;
}

struct Power {
  V power, complement;  // 2^x and 1 - 2^x
};

// For x <= 0: both accurate relative to themselves, wherever x lies. -inf and NaN have power 0.
inline Power power_of_two(V x) {
  const V held = max(x, set(-200.0f));
  const V n = round(held);
  const V part = fraction(held - n), whole = scale(set(1.0f), n);
  return {fma(whole, part, whole), (set(1.0f) - whole) - whole * part};
}

// 2^x for x <= 0; 0 for -inf and NaN.
inline V exp2(V x) { return power_of_two(x).power; }

// 1 - 2^x for x <= 0, accurate also where x is small; 1 for -inf and NaN.
inline V one_minus_exp2(V x) { return power_of_two(x).complement; }

// log(m) + more for m in [3/4, 3/2), f = m - 1.
inline V log_near_one(V f, V more) {
  V p = set(0.0571865864f);
  p = fma(p, f, set(-0.122717799f));
  p = fma(p, f, set(0.149312132f));
  p = fma(p, f, set(-0.167752116f));
  p = fma(p, f, set(0.199788610f));
  p = fma(p, f, set(-0.249966369f));
  p = fma(p, f, set(0.333335450f));
  const V square = f * f;
  return f + fma(p * f, square, fma(set(-0.5f), square, more));
}

// log(1 + x) for x > -1, accurate also where x is small.
inline V log1p(V x) {
  const V u = x + set(1.0f);
  V m, n;
  split(u, m, n);
  // What rounding took from 1 + x, divided by u; that matters near u = 1 alone, where 2 - u is 1 / u.
  const V lost = (x - (u - set(1.0f))) * max(set(2.0f) - u, set(0.0f));
  return fma(n, set(0.693147181f), log_near_one(m - set(1.0f), lost));
}

// log2(x) for normal x > 0.
inline V log2(V x) {
  V m, n;
  split(x, m, n);
  return fma(log_near_one(m - set(1.0f), set(0.0f)), set(1.44269504f), n);
}

}  // namespace detkd::DETKD_ISA
