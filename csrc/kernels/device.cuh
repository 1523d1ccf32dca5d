// What the CUDA kernels share; no torch headers, so that they compile anywhere and fast.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "../ops/problem.h"

// The kernel's name in parentheses where it has commas. On the host, csrc/emulation runs it.
#ifdef __CUDACC__
#define DETKD_LAUNCH(kernel, blocks, threads, stream, ...) kernel<<<blocks, threads, 0, stream>>>(__VA_ARGS__)
#else
#define DETKD_LAUNCH(kernel, blocks, threads, stream, ...) \
  emulation::launch(blocks, threads, [&] { kernel(__VA_ARGS__); })
#endif

namespace detkd {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__half x) { return __half2float(x); }
__device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline void put(float* at, float x) { *at = x; }
__device__ inline void put(__half* at, float x) { *at = __float2half_rn(x); }
__device__ inline void put(__nv_bfloat16* at, float x) { *at = __float2bfloat16_rn(x); }

__device__ inline float lowest() { return -__int_as_float(0x7f800000); }
__device__ inline float not_a_number() { return __int_as_float(0x7fc00000); }

// Lanes that share a position: either all of a warp, or one thread alone.
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

constexpr int kThreads = 256;  // of every block

// Sum over the threads of a block, in a fixed order; all of them get it.
__device__ inline double block_total(double x) {
  __shared__ double partial[kThreads];
  partial[threadIdx.x] = x;
  for (int step = kThreads / 2; step > 0; step /= 2) {
    __syncthreads();
    if (threadIdx.x < step) partial[threadIdx.x] += partial[threadIdx.x + step];
  }
  __syncthreads();
  const double total = partial[0];
  __syncthreads();  // before the room is used again
  return total;
}

// Sum of `count` values times `scale`, by one block in a fixed order: the same bits on every run.
template <typename Value>
__global__ void ordered_sum(const Value* values, int64_t count, double scale, float* total) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) sum += values[i];
  sum = block_total(sum);
  if (threadIdx.x == 0) *total = static_cast<float>(sum * scale);
}

}  // namespace detkd
