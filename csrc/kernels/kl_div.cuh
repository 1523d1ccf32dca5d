// CUDA kernels of detkd::kl_div_rows; no torch headers, so that they compile anywhere and fast.
//
// The input is seen as contiguous [outer, classes, inner]. Where the classes are neighbours in memory (inner = 1) a warp
// takes a row; else a thread takes a position, and neighbouring threads read neighbouring positions.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace detkd {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

struct KlDivShape {
  int64_t outer, classes, inner;
};

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__half x) { return __half2float(x); }
__device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline void store(float* at, float x) { *at = x; }
__device__ inline void store(__half* at, float x) { *at = __float2half_rn(x); }
__device__ inline void store(__nv_bfloat16* at, float x) { *at = __float2bfloat16_rn(x); }

__device__ inline float lowest() { return -__int_as_float(0x7f800000); }
__device__ inline float not_a_number() { return __int_as_float(0x7fc00000); }

// Lanes that share a row: either all of a warp, or one thread alone.
struct WarpGroup {
  static constexpr int kLanes = kWarp;
  __device__ static int lane() { return threadIdx.x % kWarp; }
  __device__ static float sum(float x) {
    for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
    return x;
  }
  __device__ static float max(float x) {
    for (int step = kWarp / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
    return x;
  }
};

struct ThreadGroup {
  static constexpr int kLanes = 1;
  __device__ static int lane() { return 0; }
  __device__ static float sum(float x) { return x; }
  __device__ static float max(float x) { return x; }
};

// One position: `student[c * stride]` for all classes c, shared among the lanes of a group.
template <typename Group, typename scalar_t>
__device__ void kl_div_position(const scalar_t* student, const scalar_t* teacher, int64_t classes, int64_t stride,
                                float temperature, float* loss, scalar_t* gradient) {
  const float scale = 1.0f / temperature;
  float top_s = lowest(), top_t = lowest(), nan = 0.0f;
  for (int64_t c = Group::lane(); c < classes; c += Group::kLanes) {
    const float s = to_float(student[c * stride]) * scale, t = to_float(teacher[c * stride]) * scale;
    top_s = fmaxf(top_s, s);
    top_t = fmaxf(top_t, t);
    nan = (isnan(s) || isnan(t)) ? 1.0f : nan;
  }
  top_s = Group::max(top_s);
  top_t = Group::max(top_t);
  nan = Group::max(nan);
  // A row of -inf alone has no distribution: it counts 0.
  const bool empty = top_s == lowest() || top_t == lowest();
  float sum_s = 0.0f, sum_t = 0.0f, dot = 0.0f;
  if (!empty) {
    for (int64_t c = Group::lane(); c < classes; c += Group::kLanes) {
      const float s = to_float(student[c * stride]) * scale - top_s, t = to_float(teacher[c * stride]) * scale - top_t;
      const float weight = expf(t);
      sum_s += expf(s);
      sum_t += weight;
      if (weight > 0.0f) dot += weight * (t - s);  // p_t = 0 counts 0, also where the student is -inf
    }
  }
  sum_s = Group::sum(sum_s);
  sum_t = Group::sum(sum_t);
  dot = Group::sum(dot);
  if (Group::lane() == 0) {
    const float value = empty ? 0.0f : temperature * temperature * (dot / sum_t - (logf(sum_t) - logf(sum_s)));
    *loss = nan != 0.0f ? not_a_number() : value;
  }
  if (gradient == nullptr) return;
  for (int64_t c = Group::lane(); c < classes; c += Group::kLanes) {
    const float p_s = expf(to_float(student[c * stride]) * scale - top_s) / sum_s;
    const float p_t = expf(to_float(teacher[c * stride]) * scale - top_t) / sum_t;
    const float slope = empty ? 0.0f : temperature * (p_s - p_t);
    store(gradient + c * stride, nan != 0.0f ? not_a_number() : slope);
  }
}

// One group for each of outer × inner positions; the grid covers them all.
template <typename Group, typename scalar_t>
__global__ void kl_div_kernel(const scalar_t* student, const scalar_t* teacher, KlDivShape shape, float temperature,
                              float* loss, scalar_t* gradient) {
  const int64_t position = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / Group::kLanes;
  if (position >= shape.outer * shape.inner) return;  // a whole group at once: no lane waits for one that has left
  const int64_t at = position / shape.inner * shape.classes * shape.inner + position % shape.inner;
  kl_div_position<Group>(student + at, teacher + at, shape.classes, shape.inner, temperature, loss + position,
                         gradient == nullptr ? nullptr : gradient + at);
}

}  // namespace detkd
