// Reductions over lanes and blocks, in a fixed order: the same bits on every run, and in every lane.
#pragma once

#include <cstring>

#include "arithmetic.cuh"

namespace detkd {

struct Sum {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};

// The value of the lane whose number differs by `step`; of any type of whole 4-byte words.
template <typename T>
__device__ T from_other_lane(const T& mine, int step) {
  constexpr int kWords = sizeof(T) / sizeof(unsigned);
  static_assert(sizeof(T) % sizeof(unsigned) == 0);
  unsigned words[kWords];
  memcpy(words, &mine, sizeof mine);
#pragma unroll
  for (int i = 0; i < kWords; ++i) words[i] = __shfl_xor_sync(0xffffffffu, words[i], step);
  T other;
  memcpy(&other, words, sizeof other);
  return other;
}

// Over the lanes whose numbers differ in the bits from `first` up to `end`, both powers of two; all lanes of the warp
// call.
template <typename T, typename Combine>
__device__ T over_lanes(T x, int first, int end, Combine combine) {
  for (int step = first; step < end; step *= 2) x = combine(x, from_other_lane(x, step));
  return x;
}

// Over a block of whole warps.
template <typename T, typename Combine>
__device__ T over_block(T x, Combine combine) {
  __shared__ T warps[kMostThreads / kWarp];
  x = over_lanes(x, 1, kWarp, combine);
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = x;
  __syncthreads();
  x = warps[0];
  for (int warp = 1; warp < blockDim.x / kWarp; ++warp) x = combine(x, warps[warp]);
  __syncthreads();  // before the room is used again
  return x;
}

__device__ inline double block_sum(double x) { return over_block(x, Sum{}); }

// Sum of `count` values times `scale`, by one block.
static __global__ void __launch_bounds__(kMostThreads)
    ordered_sum(const double* values, int64_t count, double scale, float* total) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) sum += values[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *total = static_cast<float>(sum * scale);
}

}  // namespace detkd
