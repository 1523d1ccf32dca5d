// Stands in for CUDA's header of this name where the kernels are run on the host, for tests alone: the same sources,
// with blocks one after another. A block's threads are fibers that change at barriers and shuffles, or with
// DETKD_REAL_THREADS threads, for the sanitizers.
#pragma once

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>

#define __device__
#define __host__
#define __global__
#define __shared__ static  // of the one block that runs
#define __launch_bounds__(...)

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9, cudaErrorInvalidValue = 1 };
inline cudaError_t cudaGetLastError() { return cudaSuccess; }

struct Dim3 {
  unsigned x = 0, y = 0, z = 0;
};
extern thread_local Dim3 threadIdx, blockIdx, blockDim, gridDim;

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

namespace emulation {

// What the compiler calls a kernel, template arguments and all.
template <auto Kernel>
const char* name() {
  return __PRETTY_FUNCTION__;
}

// Runs `body` as every thread of every block, with `shared` bytes of shared memory.
void launch(const char* kernel, unsigned blocks, unsigned threads, unsigned shared, const std::function<void()>& body);
void* shared_memory();

// Waits for all threads of the block, or of the warp, that have not returned.
void wait_for_block();
void wait_for_warp();

// A place for each lane of the running warp.
unsigned& slot(unsigned lane);

// What was launched since this was last asked: name, blocks, threads, bytes of shared memory, and bytes of inputs and
// gradients that were moved; a line each.
std::string take_launches();
extern std::atomic<uint64_t> moved;

// Ends the program where an access is not aligned to its size, as a GPU does.
void check_alignment(const void* address, size_t bytes);

}  // namespace emulation

inline void __syncthreads() { emulation::wait_for_block(); }

inline unsigned __shfl_xor_sync(unsigned, unsigned mine, int step) {
  const unsigned lane = threadIdx.x % 32;
  emulation::slot(lane) = mine;
  emulation::wait_for_warp();
  const unsigned theirs = emulation::slot(lane ^ step);
  emulation::wait_for_warp();  // before anybody writes again
  return theirs;
}

template <typename T>
T __ldg(const T* from) {
  emulation::check_alignment(from, sizeof(T));
  emulation::moved.fetch_add(sizeof(T), std::memory_order_relaxed);
  return *from;
}
template <typename T>
void __stwb(T* to, T value) {
  emulation::check_alignment(to, sizeof(T));
  emulation::moved.fetch_add(sizeof(T), std::memory_order_relaxed);
  *to = value;
}

inline float __int_as_float(int bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
using std::isinf;
using std::isnan;
