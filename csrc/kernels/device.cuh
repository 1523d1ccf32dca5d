// What all CUDA kernels share; no torch headers, so that they compile anywhere and fast.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <type_traits>

#include "../ops/problem.h"

// The kernel's name in parentheses where it has commas; `shared` is the number of bytes that shared_memory() returns.
// On the host, csrc/emulation runs it.
#ifdef __CUDACC__
#define DETKD_LAUNCH(kernel, blocks, threads, shared, stream, ...) \
  kernel<<<blocks, threads, shared, stream>>>(__VA_ARGS__)
#else
#define DETKD_LAUNCH(kernel, blocks, threads, shared, stream, ...) \
  emulation::launch(emulation::name<kernel>(), blocks, threads, shared, [&] { kernel(__VA_ARGS__); })
#endif

namespace detkd {

// The block's memory of the size that it was launched with.
template <typename T>
__device__ T* shared_memory() {
#ifdef __CUDACC__
  extern __shared__ __align__(16) unsigned char detkd_shared_memory[];
  return reinterpret_cast<T*>(detkd_shared_memory);
#else
  return static_cast<T*>(emulation::shared_memory());
#endif
}

constexpr int kWarp = 32;
constexpr int kThreads = 256;      // of a block, where nothing speaks for another number
constexpr int kMostThreads = 512;  // of any block: leaves 128 registers a thread

// Blocks of kThreads that are to fit a multiprocessor, as a limit of 80 registers: left to itself ptxas sets itself
// lower ones, and spills.
constexpr int kResident = 3;

DETKD_ANYWHERE constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// a / b and what is left. A 64-bit division costs a hundred instructions, and nearly all numbers fit into 32 bits.
struct Division {
  int64_t quotient, remainder;
};
__device__ inline Division divide(int64_t a, int64_t b) {
  if (static_cast<uint64_t>(a | b) >> 32 == 0) {
    const uint32_t small = static_cast<uint32_t>(a), by = static_cast<uint32_t>(b);
    return {small / by, small % by};
  }
  return {a / b, a % b};
}

// Where the index-th position of the outer dimensions lies in a tensor of these strides. Unlike offsets() it does one
// tensor at a time and is not unrolled: few dimensions are left as a rule, and registers are what kernels run out of.
__device__ inline int64_t offset(const Outer& outer, const int64_t (&strides)[kMaxDims], int64_t index) {
  int64_t at = 0;
#pragma unroll 1
  for (int d = outer.ndim - 1; d > 0; --d) {
    const Division where = divide(index, outer.size[d]);
    at += where.remainder * strides[d];
    index = where.quotient;
  }
  return at + index * strides[0];  // without outer dimensions index is 0
}

// Host: whether a grid has room for that many blocks.
inline bool fits_grid(int64_t blocks) { return blocks <= INT32_MAX; }

}  // namespace detkd
