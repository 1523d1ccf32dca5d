// Sixteen lanes of float32 in AVX-512 (F, BW, DQ, VL). The other files in simd/ give the same names on other hardware.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "types.h"

namespace detkd::avx512 {

using V = __m512;
using M = __mmask16;
constexpr int kWidth = 16;

inline V set(float x) { return _mm512_set1_ps(x); }
inline V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
// Both return b where either is NaN.
inline V max(V a, V b) { return _mm512_max_ps(a, b); }
inline V min(V a, V b) { return _mm512_min_ps(a, b); }
inline V abs(V a) { return _mm512_abs_ps(a); }
inline V negative(V a) { return _mm512_xor_ps(a, set(-0.0f)); }
inline V negative_abs(V a) { return _mm512_or_ps(a, set(-0.0f)); }
inline V with_sign_of(V magnitude, V sign) {  // magnitude is not negative
  constexpr int kAndOr = 0xea;                // (a & b) | c
  const __m512i bits = _mm512_ternarylogic_epi32(_mm512_castps_si512(sign), _mm512_castps_si512(set(-0.0f)),
                                                 _mm512_castps_si512(magnitude), kAndOr);
  return _mm512_castsi512_ps(bits);
}
// The number whose exponent field is in the lowest bits of a.
inline V exponent_from(V a) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a), 23)); }
// Splits a > 0 into m * 2^n with m in [3/4, 3/2).
inline void split(V a, V& m, V& n) {
  // Adding a quarter of the octave carries mantissas from 1.5 on into the next exponent.
  const __m512i carried = _mm512_add_epi32(_mm512_castps_si512(a), _mm512_set1_epi32(0x00400000));
  n = _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_srli_epi32(carried, 23), _mm512_set1_epi32(127)));
  m = _mm512_getmant_ps(a, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_src);
}

inline M less(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
inline M equal(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
inline M differ(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ); }  // true for NaN
inline M unordered(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q); }
inline M either(M a, M b) { return static_cast<M>(a | b); }
inline M both(M a, M b) { return static_cast<M>(a & b); }
inline bool any(M mask) { return mask != 0; }
inline bool lane(M mask, int i) { return mask >> i & 1; }
inline V select(M mask, V yes, V no) { return _mm512_mask_blend_ps(mask, no, yes); }
// By the sign bit, also of -0 and NaN.
inline V where_negative(V sign, V yes, V no) {
  return select(_mm512_movepi32_mask(_mm512_castps_si512(sign)), yes, no);
}
inline V fma_where(M mask, V a, V b, V c) { return _mm512_mask3_fmadd_ps(a, b, c, mask); }  // c elsewhere

inline M first(int64_t n) { return static_cast<M>((1u << n) - 1); }
inline V widen(__m256i x, const Half*) { return _mm512_maskz_cvtph_ps(0xffff, x); }
// One shuffle moves each half to the upper half of its lane, where extending and shifting take two instructions.
inline V widen(__m256i x, const BFloat16*) {
  constexpr __mmask32 kUpper = 0xaaaaaaaa;
  const __m512i place = _mm512_slli_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), 16);
  return _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(kUpper, place, _mm512_castsi256_si512(x)));
}
inline __m256i narrow(V x, const Half*) { return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// To nearest, ties away from zero, in the upper half of each lane. A NaN that arithmetic has made or passed on stays one
// when it is cut off.
inline __m512i rounded(V x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __mmask16 numbers = _mm512_cmp_ps_mask(x, x, _CMP_ORD_Q);
  return _mm512_mask_add_epi32(bits, numbers, bits, _mm512_set1_epi32(0x8000));
}
// Likewise one shuffle instead of a shift and a conversion.
inline __m256i narrow(V x, const BFloat16*) {
  const __m512i place = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 0x1f001d, 0x1b0019, 0x170015, 0x130011, 0xf000d,  //
                                         0xb0009, 0x70005, 0x30001);
  return _mm512_castsi512_si256(_mm512_permutexvar_epi16(place, rounded(x)));
}

inline V load(const float* at) { return _mm512_loadu_ps(at); }
template <typename T>
inline V load(const T* at) {
  return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)), at);
}
inline V load(const float* at, int64_t n, float fill) { return _mm512_mask_loadu_ps(set(fill), first(n), at); }
template <typename T>
inline V load(const T* at, int64_t n, float fill) {
  return select(first(n), widen(_mm256_maskz_loadu_epi16(first(n), at), at), set(fill));
}
inline void store(float* at, V x) { _mm512_storeu_ps(at, x); }
inline void store(float* at, V x, int64_t n) { _mm512_mask_storeu_ps(at, first(n), x); }
template <typename T>
inline void store(T* at, V x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), narrow(x, at));
}
template <typename T>
inline void store(T* at, V x, int64_t n) {
  _mm256_mask_storeu_epi16(at, first(n), narrow(x, at));
}
// Two vectors of neighbours, the even ones in the first and the odd ones in the second: each is half of a 32-bit lane.
inline void load_two(const BFloat16* at, V* x) {
  const __m512i both = _mm512_loadu_si512(at);
  x[0] = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
  x[1] = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(-0x10000)));
}
inline void store_two(BFloat16* at, const V* x) {
  constexpr int kAndOr = 0xea;  // (a & b) | c
  const __m512i even = _mm512_srli_epi32(rounded(x[0]), 16), odd = rounded(x[1]);
  _mm512_storeu_si512(at, _mm512_ternarylogic_epi32(odd, _mm512_set1_epi32(-0x10000), even, kAndOr));
}
// Past the caches: for results that are larger than they are. `at` is aligned to a whole vector.
inline void stream(float* at, V x) { _mm512_stream_ps(at, x); }
template <typename T>
inline void stream(T* at, V x) {
  _mm256_stream_si256(reinterpret_cast<__m256i*>(at), narrow(x, at));
}
inline void fence() { _mm_sfence(); }

template <typename Op>
inline V halves(V a, V b) {
  return Op::apply(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
}
template <typename Op>
inline V quarters(V a, V b) {
  return Op::apply(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}
template <typename Op>
inline V pairs(V a, V b) {
  return Op::apply(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd));
}
// Lane r of the result is Op over all lanes of rows[r]: a tree of shuffles, three instructions a row.
template <typename Op>
inline V reduce_rows(const V* rows) {
  V lanes[4];  // 128-bit lanes of rows r, r + 4, r + 8, r + 12
  for (int r = 0; r < 4; ++r) {
    lanes[r] = quarters<Op>(halves<Op>(rows[r], rows[r + 4]), halves<Op>(rows[r + 8], rows[r + 12]));
  }
  return pairs<Op>(pairs<Op>(lanes[0], lanes[1]), pairs<Op>(lanes[2], lanes[3]));
}

// Four neighbours from `at` on, four from at + stride on, and so on.
inline V load_blocks(const float* at, int64_t stride) {
  V x = _mm512_castps128_ps512(_mm_loadu_ps(at));
  x = _mm512_insertf32x4(x, _mm_loadu_ps(at + stride), 1);
  x = _mm512_insertf32x4(x, _mm_loadu_ps(at + 2 * stride), 2);
  return _mm512_insertf32x4(x, _mm_loadu_ps(at + 3 * stride), 3);
}
template <typename T>
inline V load_blocks(const T* at, int64_t stride) {
  const auto two = [stride](const T* from) {
    const __m128i low = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
    return _mm_loadh_pi(_mm_castsi128_ps(low), reinterpret_cast<const __m64*>(from + stride));
  };
  const __m256 all = _mm256_insertf128_ps(_mm256_castps128_ps256(two(at)), two(at + 2 * stride), 1);
  return widen(_mm256_castps_si256(all), at);
}
inline void store_blocks(float* at, int64_t stride, V x) {
  _mm_storeu_ps(at, _mm512_castps512_ps128(x));
  _mm_storeu_ps(at + stride, _mm512_extractf32x4_ps(x, 1));
  _mm_storeu_ps(at + 2 * stride, _mm512_extractf32x4_ps(x, 2));
  _mm_storeu_ps(at + 3 * stride, _mm512_extractf32x4_ps(x, 3));
}
template <typename T>
inline void store_blocks(T* at, int64_t stride, V x) {
  const auto two = [stride](T* to, __m128 y) {
    _mm_storel_pi(reinterpret_cast<__m64*>(to), y);
    _mm_storeh_pi(reinterpret_cast<__m64*>(to + stride), y);
  };
  const __m256 all = _mm256_castsi256_ps(narrow(x, at));
  two(at, _mm256_castps256_ps128(all));
  two(at + 2 * stride, _mm256_extractf128_ps(all, 1));
}

// In each block of four lanes, rows[r][c] becomes rows[c][r], r and c up to 4.
inline void transpose_blocks(V* rows) {
  const __m512d low = _mm512_castps_pd(_mm512_unpacklo_ps(rows[0], rows[1]));
  const __m512d high = _mm512_castps_pd(_mm512_unpackhi_ps(rows[0], rows[1]));
  const __m512d next_low = _mm512_castps_pd(_mm512_unpacklo_ps(rows[2], rows[3]));
  const __m512d next_high = _mm512_castps_pd(_mm512_unpackhi_ps(rows[2], rows[3]));
  rows[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, next_low));
  rows[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, next_low));
  rows[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high, next_high));
  rows[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high, next_high));
}

inline float total_of(V a) { return _mm512_reduce_add_ps(a); }

// Running sums in float64, for what is a small difference of large sums in the end.
struct Wide {
  __m512d low, high;

  static Wide zero() { return {_mm512_setzero_pd(), _mm512_setzero_pd()}; }
  static Wide load(const double* at) { return {_mm512_loadu_pd(at), _mm512_loadu_pd(at + 8)}; }
  void add(V x) {
    low = _mm512_add_pd(low, _mm512_cvtps_pd(_mm512_castps512_ps256(x)));
    high = _mm512_add_pd(high, _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1)));
  }
  void store(double* at) const {
    _mm512_storeu_pd(at, low);
    _mm512_storeu_pd(at + 8, high);
  }
};

}  // namespace detkd::avx512
