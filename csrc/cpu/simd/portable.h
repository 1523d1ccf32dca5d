// Four lanes of float32 in plain C++, with the vector extension that GCC and Clang share.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "types.h"

namespace detkd::portable {

constexpr int kWidth = 4;
typedef float V __attribute__((vector_size(16)));
typedef int32_t M __attribute__((vector_size(16)));  // -1 or 0
typedef uint32_t Bits __attribute__((vector_size(16)));

inline V set(float x) { return V{x, x, x, x}; }
inline V fma(V a, V b, V c) { return a * b + c; }
inline V select(M mask, V yes, V no) {
  return reinterpret_cast<V>((mask & reinterpret_cast<M>(yes)) | (~mask & reinterpret_cast<M>(no)));
}
// Both return b where either is NaN.
inline V max(V a, V b) { return select(a > b, a, b); }
inline V min(V a, V b) { return select(a < b, a, b); }
inline V abs(V a) { return reinterpret_cast<V>(reinterpret_cast<Bits>(a) & 0x7fffffffu); }
inline V negative(V a) { return -a; }
inline V negative_abs(V a) { return reinterpret_cast<V>(reinterpret_cast<Bits>(a) | 0x80000000u); }
inline V with_sign_of(V magnitude, V sign) {  // magnitude is not negative
  return reinterpret_cast<V>(reinterpret_cast<Bits>(magnitude) | (reinterpret_cast<Bits>(sign) & 0x80000000u));
}
// The number whose exponent field is in the lowest bits of a.
inline V exponent_from(V a) { return reinterpret_cast<V>(reinterpret_cast<Bits>(a) << 23); }

inline M less(V a, V b) { return a < b; }
inline M equal(V a, V b) { return a == b; }
inline M differ(V a, V b) { return a != b; }  // true for NaN
inline M unordered(V a, V b) { return (a != a) | (b != b); }
inline M either(M a, M b) { return a | b; }
inline M both(M a, M b) { return a & b; }
inline bool any(M mask) { return (mask[0] | mask[1] | mask[2] | mask[3]) != 0; }
inline bool lane(M mask, int i) { return mask[i] != 0; }
// By the sign bit, also of -0 and NaN.
inline V where_negative(V sign, V yes, V no) {
  return select(reinterpret_cast<M>(sign) < 0, yes, no);
}
inline V fma_where(M mask, V a, V b, V c) { return select(mask, fma(a, b, c), c); }

// Splits a > 0 into m * 2^n with m in [3/4, 3/2).
inline void split(V a, V& m, V& n) {
  const Bits bits = reinterpret_cast<Bits>(a);
  // Adding a quarter of the octave carries mantissas from 1.5 on into the next exponent. Without a sign, as of a NaN the
  // sum is too large for one.
  const M exponent = (reinterpret_cast<M>(bits + 0x00400000u) >> 23) - 127;
  n = __builtin_convertvector(exponent, V);
  m = reinterpret_cast<V>(bits - (reinterpret_cast<Bits>(exponent) << 23));
}

inline float widen(Half x) {
  const uint32_t sign = (x.bits & 0x8000u) << 16, magnitude = x.bits & 0x7fffu;
  uint32_t bits = magnitude >= 0x7c00u ? 0x7f800000u | magnitude << 13 : (magnitude << 13) + (112u << 23);
  float value;
  std::memcpy(&value, &bits, sizeof value);
  if (magnitude < 0x0400u) value = static_cast<float>(magnitude) * 5.9604644775390625e-8f;  // subnormal: in 2^-24
  std::memcpy(&bits, &value, sizeof bits);
  bits |= sign;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline float widen(BFloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline void narrow(float x, Half& to) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const uint16_t sign = bits >> 16 & 0x8000u;
  const float size = std::fabs(x);
  if (x != x) {
    to.bits = 0x7e00u;
  } else if (size >= 65520.0f) {  // rounds up to infinity
    to.bits = sign | 0x7c00u;
  } else if (size < 6.103515625e-5f) {  // subnormal: whole multiples of 2^-24, rounded to even by the sum
    const float shifted = size * 16777216.0f + 12582912.0f;
    to.bits = sign | static_cast<uint16_t>(shifted - 12582912.0f);
  } else {
    const uint32_t magnitude = (bits & 0x7fffffffu) - (112u << 23);
    to.bits = sign | static_cast<uint16_t>((magnitude + 0xfffu + (magnitude >> 13 & 1u)) >> 13);
  }
}
inline void narrow(float x, BFloat16& to) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  // To nearest, ties away from zero. A NaN that arithmetic has made or passed on stays one when it is cut off.
  to.bits = static_cast<uint16_t>((x != x ? bits : bits + 0x8000u) >> 16);
}

inline V load(const float* at) {
  V x;
  std::memcpy(&x, at, sizeof x);
  return x;
}
inline V load(const float* at, int64_t n, float fill) {
  V x = set(fill);
  std::memcpy(&x, at, n * sizeof(float));
  return x;
}
template <typename T>
inline V load(const T* at, int64_t n, float fill) {
  V x = set(fill);
  for (int64_t i = 0; i < n; ++i) x[i] = widen(at[i]);
  return x;
}
template <typename T>
inline V load(const T* at) {
  return V{widen(at[0]), widen(at[1]), widen(at[2]), widen(at[3])};
}
inline void store(float* at, V x) { std::memcpy(at, &x, sizeof x); }
inline void store(float* at, V x, int64_t n) { std::memcpy(at, &x, n * sizeof(float)); }
template <typename T>
inline void store(T* at, V x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) narrow(x[i], at[i]);
}
template <typename T>
inline void store(T* at, V x) {
  store(at, x, kWidth);
}
template <typename T>
inline void stream(T* at, V x) {
  store(at, x);
}
inline void fence() {}

// Lane r of the result is Op over all lanes of rows[r].
template <typename Op>
inline V reduce_rows(const V* rows) {
  V columns[kWidth];
  for (int r = 0; r < kWidth; ++r) {
    for (int i = 0; i < kWidth; ++i) columns[i][r] = rows[r][i];
  }
  return Op::apply(Op::apply(columns[0], columns[1]), Op::apply(columns[2], columns[3]));
}

// The block of four neighbours that other instruction sets have several of.
template <typename T>
inline V load_blocks(const T* at, int64_t) {
  return load(at);
}
template <typename T>
inline void store_blocks(T* at, int64_t, V x) {
  store(at, x);
}

// rows[r][c] becomes rows[c][r].
inline void transpose_blocks(V* rows) {
  for (int r = 0; r < kWidth; ++r) {
    for (int c = r + 1; c < kWidth; ++c) {
      const float kept = rows[r][c];
      rows[r][c] = rows[c][r];
      rows[c][r] = kept;
    }
  }
}

inline float total_of(V a) { return (a[0] + a[1]) + (a[2] + a[3]); }

// Running sums in float64, for what is a small difference of large sums in the end.
struct Wide {
  double sums[kWidth];

  static Wide zero() { return {{0, 0, 0, 0}}; }
  static Wide load(const double* at) { return {{at[0], at[1], at[2], at[3]}}; }
  void add(V x) {
    for (int i = 0; i < kWidth; ++i) sums[i] += x[i];
  }
  void store(double* at) const { std::memcpy(at, sums, sizeof sums); }
};

}  // namespace detkd::portable
