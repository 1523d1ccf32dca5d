// Access to kWidth neighbouring elements at once: 16 bytes where everything is aligned, else one element. The gradient
// is memory of its own and aligned, so that an unaligned student never shares its head with it: there is no path that
// peels one off.
#pragma once

#include <cstring>

#include "device.cuh"

namespace detkd {

constexpr int kVectorBytes = 16;
template <typename scalar_t>
constexpr int kWidest = kVectorBytes / sizeof(scalar_t);

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__half x) { return __half2float(x); }
__device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename scalar_t>
__device__ scalar_t from_float(float x) {
  if constexpr (sizeof(scalar_t) == sizeof(float)) {
    return x;
  } else if constexpr (std::is_same_v<scalar_t, __half>) {
    return __float2half_rn(x);
  } else {
    return __float2bfloat16_rn(x);
  }
}

template <int kWidth, typename scalar_t>
__device__ void load(const scalar_t* from, float (&to)[kWidth]) {
  if constexpr (kWidth == 1) {
    to[0] = to_float(__ldg(from));
  } else {
    static_assert(kWidth == kWidest<scalar_t>);
    const uint4 raw = __ldg(reinterpret_cast<const uint4*>(from));
    scalar_t values[kWidth];
    memcpy(values, &raw, sizeof raw);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) to[i] = to_float(values[i]);
  }
}

template <int kWidth, typename scalar_t>
__device__ void store(scalar_t* to, const float (&from)[kWidth]) {
  if constexpr (kWidth == 1) {
    __stwb(to, from_float<scalar_t>(from[0]));
  } else {
    static_assert(kWidth == kWidest<scalar_t>);
    scalar_t values[kWidth];
#pragma unroll
    for (int i = 0; i < kWidth; ++i) values[i] = from_float<scalar_t>(from[i]);
    uint4 raw;
    memcpy(&raw, values, sizeof raw);
    __stwb(reinterpret_cast<uint4*>(to), raw);
  }
}

// The same at a run's end, which may leave `left` elements, fewer than a vector.
template <int kWidth, typename scalar_t>
__device__ void load_run(const scalar_t* from, int64_t left, float (&to)[kWidth]) {
  if (left >= kWidth) return load<kWidth>(from, to);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) to[i] = i < left ? to_float(__ldg(from + i)) : 0.0f;
}
template <int kWidth, typename scalar_t>
__device__ void store_run(scalar_t* to, int64_t left, const float (&from)[kWidth]) {
  if (left >= kWidth) return store<kWidth>(to, from);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    if (i < left) __stwb(to + i, from_float<scalar_t>(from[i]));
  }
}

// Host: whether all of these addresses and distances in bytes are whole vectors.
template <typename... Bytes>
bool whole_vectors(Bytes... bytes) {
  return (static_cast<uintptr_t>(bytes) | ...) % kVectorBytes == 0;
}
inline uintptr_t address(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }

inline bool vectors_align(const LogitsProblem& p) {
  int64_t strides = 0;
  for (int d = 0; d < p.outer.ndim; ++d) strides |= p.outer.student[d] | p.outer.teacher[d] | p.outer.gradient[d];
  return whole_vectors(address(p.student), address(p.teacher), address(p.gradient), strides * bytes_of(p.type));
}

inline bool vectors_align(const FeatureMaps& maps) {
  const int64_t strides =
      maps.positions | maps.student_batch | maps.student_channel | maps.teacher_batch | maps.teacher_channel;
  return whole_vectors(address(maps.student), address(maps.teacher), address(maps.gradient),
                       strides * bytes_of(maps.type));
}

// Calls call(x, width) with x of the type's class, and with the width of vectors where they align or else of one
// element.
template <typename Call>
auto for_type_and_width(ScalarType type, bool aligned, const Call& call) {
  return for_type<__half, __nv_bfloat16>(type, [&](auto x) {
    return aligned ? call(x, std::integral_constant<int, kWidest<decltype(x)>>{})
                   : call(x, std::integral_constant<int, 1>{});
  });
}

}  // namespace detkd
