// Stands in for CUDA's header of this name where the kernels are run on the host, for tests alone: the same sources, with
// blocks one after another. A block's threads are fibers that change at barriers and shuffles, or with
// DETKD_REAL_THREADS threads, for the sanitizers.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#define __device__
#define __host__
#define __global__
#define __shared__ static  // of the one block that runs

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9, cudaErrorInvalidValue = 1 };
inline cudaError_t cudaGetLastError() { return cudaSuccess; }

struct Dim3 {
  unsigned x = 0, y = 0, z = 0;
};
extern thread_local Dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

// Runs `body` as every thread of every block.
void launch(unsigned blocks, unsigned threads, const std::function<void()>& body);

// Waits for all threads of the block, or of the warp, that have not returned.
void wait_for_block();
void wait_for_warp();

// A place for each lane of the running warp.
void* slot(unsigned lane);

template <typename T>
T exchange(T mine, unsigned from) {
  static_assert(sizeof(T) <= 8);
  std::memcpy(slot(threadIdx.x % 32), &mine, sizeof(T));
  wait_for_warp();
  T theirs;
  std::memcpy(&theirs, slot(from), sizeof(T));
  wait_for_warp();  // before anybody writes again
  return theirs;
}

}  // namespace emulation

inline void __syncthreads() { emulation::wait_for_block(); }
inline float __shfl_xor_sync(unsigned, float x, int step) { return emulation::exchange(x, (threadIdx.x % 32) ^ step); }

inline float __int_as_float(int bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
using std::isinf;
using std::isnan;
