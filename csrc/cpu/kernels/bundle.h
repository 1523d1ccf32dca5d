// Several vectors that take the same steps side by side, in namespace detkd::DETKD_ISA.
//
// A formula on one vector is a chain of some twenty instructions that wait for each other: written for one vector after
// the other it fills the processor's schedulers with waiting instructions long before the arithmetic units are busy.
// Formulas written for any type, `V` or `Bundle<K>`, put K independent instructions at each step.
#pragma once

#include "vectors.h"

namespace detkd::DETKD_ISA {

template <int K>
struct Bundle {
  V parts[K];
};

template <typename X>
constexpr int kParts = 0;
template <int K>
constexpr int kParts<Bundle<K>> = K;

inline V part(V x, int) { return x; }
template <int K>
inline V part(const Bundle<K>& x, int k) {
  return x.parts[k];
}

// At least one is a bundle; vectors go with each of its parts.
template <typename... X>
concept Bundled = (kParts<X> + ...) > 0;

template <typename Op, typename... X>
  requires Bundled<X...>
DETKD_INLINE inline auto side_by_side(const Op& op, const X&... x) {
  Bundle<std::max({kParts<X>...})> out;
  for (int k = 0; k < std::max({kParts<X>...}); ++k) out.parts[k] = op(part(x, k)...);
  return out;
}

template <typename A, typename B>
  requires Bundled<A, B>
DETKD_INLINE inline auto operator+(const A& a, const B& b) {
  return side_by_side([](V x, V y) { return x + y; }, a, b);
}
template <typename A, typename B>
  requires Bundled<A, B>
DETKD_INLINE inline auto operator-(const A& a, const B& b) {
  return side_by_side([](V x, V y) { return x - y; }, a, b);
}
template <typename A, typename B>
  requires Bundled<A, B>
DETKD_INLINE inline auto operator*(const A& a, const B& b) {
  return side_by_side([](V x, V y) { return x * y; }, a, b);
}
template <typename A, typename B, typename C>
  requires Bundled<A, B, C>
DETKD_INLINE inline auto fma(const A& a, const B& b, const C& c) {
  return side_by_side([](V x, V y, V z) { return fma(x, y, z); }, a, b, c);
}
template <typename A, typename B>
  requires Bundled<A, B>
DETKD_INLINE inline auto max(const A& a, const B& b) {
  return side_by_side([](V x, V y) { return max(x, y); }, a, b);
}
template <typename A, typename B>
  requires Bundled<A, B>
DETKD_INLINE inline auto with_sign_of(const A& a, const B& b) {
  return side_by_side([](V x, V y) { return with_sign_of(x, y); }, a, b);
}
template <typename A, typename B, typename C>
  requires Bundled<A, B, C>
DETKD_INLINE inline auto where_negative(const A& sign, const B& yes, const C& no) {
  return side_by_side([](V x, V y, V z) { return where_negative(x, y, z); }, sign, yes, no);
}
template <int K>
DETKD_INLINE inline Bundle<K> negative_abs(const Bundle<K>& a) {
  return side_by_side([](V x) { return negative_abs(x); }, a);
}
template <int K>
DETKD_INLINE inline Bundle<K> exponent_from(const Bundle<K>& a) {
  return side_by_side([](V x) { return exponent_from(x); }, a);
}

// Indices begin ... begin + K - 1 of what is bundled.
template <int K>
struct At {
  static constexpr int size = K;
  int64_t begin;
};

// Calls body(At<K>) as long as K items of [begin, end) are left, then body(At<1>).
template <int K, typename Body>
DETKD_INLINE inline void for_bundles(int64_t begin, int64_t end, const Body& body) {
  for (; begin + K <= end; begin += K) body(At<K>{begin});
  for (; begin < end; ++begin) body(At<1>{begin});
}

}  // namespace detkd::DETKD_ISA
