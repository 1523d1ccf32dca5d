// Eight lanes of float32 in AVX2 with FMA and F16C.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "types.h"

namespace detkd::avx2 {

using V = __m256;
using M = __m256;  // all bits of a lane, or none
constexpr int kWidth = 8;

inline V set(float x) { return _mm256_set1_ps(x); }
inline V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
// Both return b where either is NaN.
inline V max(V a, V b) { return _mm256_max_ps(a, b); }
inline V min(V a, V b) { return _mm256_min_ps(a, b); }
inline V abs(V a) { return _mm256_andnot_ps(set(-0.0f), a); }
inline V negative(V a) { return _mm256_xor_ps(a, set(-0.0f)); }
inline V negative_abs(V a) { return _mm256_or_ps(a, set(-0.0f)); }
inline V with_sign_of(V magnitude, V sign) {  // magnitude is not negative
  return _mm256_or_ps(magnitude, _mm256_and_ps(sign, set(-0.0f)));
}
// The number whose exponent field is in the lowest bits of a.
inline V exponent_from(V a) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a), 23)); }

inline M less(V a, V b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
inline M equal(V a, V b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
inline M differ(V a, V b) { return _mm256_cmp_ps(a, b, _CMP_NEQ_UQ); }  // true for NaN
inline M unordered(V a, V b) { return _mm256_cmp_ps(a, b, _CMP_UNORD_Q); }
inline M either(M a, M b) { return _mm256_or_ps(a, b); }
inline M both(M a, M b) { return _mm256_and_ps(a, b); }
inline bool any(M mask) { return _mm256_movemask_ps(mask) != 0; }
inline bool lane(M mask, int i) { return _mm256_movemask_ps(mask) >> i & 1; }
inline V select(M mask, V yes, V no) { return _mm256_blendv_ps(no, yes, mask); }
// By the sign bit, also of -0 and NaN.
inline V where_negative(V sign, V yes, V no) { return _mm256_blendv_ps(no, yes, sign); }
inline V fma_where(M mask, V a, V b, V c) { return select(mask, fma(a, b, c), c); }

// Splits a > 0 into m * 2^n with m in [3/4, 3/2).
inline void split(V a, V& m, V& n) {
  const __m256i bits = _mm256_castps_si256(a), quarter = _mm256_set1_epi32(0x00400000);
  // Adding a quarter of the octave carries mantissas from 1.5 on into the next exponent.
  const __m256i exponent =
      _mm256_sub_epi32(_mm256_srli_epi32(_mm256_add_epi32(bits, quarter), 23), _mm256_set1_epi32(127));
  n = _mm256_cvtepi32_ps(exponent);
  m = _mm256_castsi256_ps(_mm256_sub_epi32(bits, _mm256_slli_epi32(exponent, 23)));
}

inline M first(int64_t n) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lanes));
}
inline V widen(__m128i x, const Half*) { return _mm256_cvtph_ps(x); }
inline V widen(__m128i x, const BFloat16*) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
inline __m128i narrow(V x, const Half*) { return _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// To nearest, ties away from zero, in the upper half of each lane. A NaN that arithmetic has made or passed on stays one
// when it is cut off.
inline __m256i rounded(V x) {
  const __m256i numbers = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_ORD_Q));
  return _mm256_add_epi32(_mm256_castps_si256(x), _mm256_and_si256(numbers, _mm256_set1_epi32(0x8000)));
}
inline __m128i narrow(V x, const BFloat16*) {
  const __m256i packed = _mm256_packus_epi32(_mm256_srli_epi32(rounded(x), 16), _mm256_setzero_si256());
  return _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
}

inline V load(const float* at) { return _mm256_loadu_ps(at); }
template <typename T>
inline V load(const T* at) {
  return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)), at);
}
inline V load(const float* at, int64_t n, float fill) {
  return select(first(n), _mm256_maskload_ps(at, _mm256_castps_si256(first(n))), set(fill));
}
template <typename T>
inline V load(const T* at, int64_t n, float fill) {
  T held[kWidth] = {};
  std::memcpy(held, at, n * sizeof(T));
  return select(first(n), load(held), set(fill));
}
inline void store(float* at, V x) { _mm256_storeu_ps(at, x); }
inline void store(float* at, V x, int64_t n) { _mm256_maskstore_ps(at, _mm256_castps_si256(first(n)), x); }
template <typename T>
inline void store(T* at, V x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(at), narrow(x, at));
}
template <typename T>
inline void store(T* at, V x, int64_t n) {
  T held[kWidth];
  store(held, x);
  std::memcpy(at, held, n * sizeof(T));
}
// Two vectors of neighbours, the even ones in the first and the odd ones in the second: each is half of a 32-bit lane.
inline void load_two(const BFloat16* at, V* x) {
  const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
  x[0] = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
  x[1] = _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32(-0x10000)));
}
inline void store_two(BFloat16* at, const V* x) {
  const __m256i even = _mm256_srli_epi32(rounded(x[0]), 16);
  const __m256i odd = _mm256_and_si256(rounded(x[1]), _mm256_set1_epi32(-0x10000));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), _mm256_or_si256(even, odd));
}
// Past the caches: for results that are larger than they are. `at` is aligned to a whole vector.
inline void stream(float* at, V x) { _mm256_stream_ps(at, x); }
template <typename T>
inline void stream(T* at, V x) {
  _mm_stream_si128(reinterpret_cast<__m128i*>(at), narrow(x, at));
}
inline void fence() { _mm_sfence(); }

// Lane r of the result is Op over all lanes of rows[r].
template <typename Op>
inline V reduce_rows(const V* rows) {
  V lanes[4];  // 128-bit lanes of rows r and r + 4
  for (int r = 0; r < 4; ++r) {
    lanes[r] = Op::apply(_mm256_permute2f128_ps(rows[r], rows[r + 4], 0x20),
                         _mm256_permute2f128_ps(rows[r], rows[r + 4], 0x31));
  }
  const V low = Op::apply(_mm256_shuffle_ps(lanes[0], lanes[1], 0x88), _mm256_shuffle_ps(lanes[0], lanes[1], 0xdd));
  const V high = Op::apply(_mm256_shuffle_ps(lanes[2], lanes[3], 0x88), _mm256_shuffle_ps(lanes[2], lanes[3], 0xdd));
  return Op::apply(_mm256_shuffle_ps(low, high, 0x88), _mm256_shuffle_ps(low, high, 0xdd));
}

// Four neighbours from `at` on and four from at + stride on.
inline V load_blocks(const float* at, int64_t stride) {
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(at)), _mm_loadu_ps(at + stride), 1);
}
template <typename T>
inline V load_blocks(const T* at, int64_t stride) {
  const __m128i low = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at));
  return widen(_mm_castps_si128(_mm_loadh_pi(_mm_castsi128_ps(low), reinterpret_cast<const __m64*>(at + stride))), at);
}
inline void store_blocks(float* at, int64_t stride, V x) {
  _mm_storeu_ps(at, _mm256_castps256_ps128(x));
  _mm_storeu_ps(at + stride, _mm256_extractf128_ps(x, 1));
}
template <typename T>
inline void store_blocks(T* at, int64_t stride, V x) {
  const __m128 both = _mm_castsi128_ps(narrow(x, at));
  _mm_storel_pi(reinterpret_cast<__m64*>(at), both);
  _mm_storeh_pi(reinterpret_cast<__m64*>(at + stride), both);
}

// In each block of four lanes, rows[r][c] becomes rows[c][r], r and c up to 4.
inline void transpose_blocks(V* rows) {
  const V low = _mm256_unpacklo_ps(rows[0], rows[1]), high = _mm256_unpackhi_ps(rows[0], rows[1]);
  const V next_low = _mm256_unpacklo_ps(rows[2], rows[3]), next_high = _mm256_unpackhi_ps(rows[2], rows[3]);
  rows[0] = _mm256_shuffle_ps(low, next_low, 0x44);
  rows[1] = _mm256_shuffle_ps(low, next_low, 0xee);
  rows[2] = _mm256_shuffle_ps(high, next_high, 0x44);
  rows[3] = _mm256_shuffle_ps(high, next_high, 0xee);
}

inline float total_of(V a) {
  const __m128 half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps(pair, pair, 1)));
}

// Running sums in float64, for what is a small difference of large sums in the end.
struct Wide {
  __m256d low, high;

  static Wide zero() { return {_mm256_setzero_pd(), _mm256_setzero_pd()}; }
  static Wide load(const double* at) { return {_mm256_loadu_pd(at), _mm256_loadu_pd(at + 4)}; }
  void add(V x) {
    low = _mm256_add_pd(low, _mm256_cvtps_pd(_mm256_castps256_ps128(x)));
    high = _mm256_add_pd(high, _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)));
  }
  void store(double* at) const {
    _mm256_storeu_pd(at, low);
    _mm256_storeu_pd(at + 4, high);
  }
};

}  // namespace detkd::avx2
