// A block seen as a table over memory where positions are neighbours: kAcross threads side by side take neighbouring
// vectors of positions, and the rows of the table ("slices") share out the classes or channels.
#pragma once

#include "reduce.cuh"
#include "vectors.cuh"

namespace detkd {

template <int kWidth_, int kAcross_>
struct Tile {
  static constexpr int kWidth = kWidth_, kAcross = kAcross_, kPositions = kAcross * kWidth;
  static_assert(kWarp % kAcross == 0);

  __device__ static int column() { return threadIdx.x % kAcross; }
  __device__ static int slice() { return threadIdx.x / kAcross; }
  __device__ static int slices() { return blockDim.x / kAcross; }

  // Values that fold() needs room for in shared_memory().
  DETKD_ANYWHERE static constexpr unsigned slots(unsigned threads) { return threads / kWarp * kPositions; }

  // Folds over the slices what value(i) returns for the i-th position of this thread's vector: finish(position in the
  // tile, folded) is called once for each position, by one thread; what it returns goes back to all threads of its
  // column.
  template <typename ValueOf, typename Combine, typename Finish>
  __device__ static auto fold(ValueOf value, Combine combine, Finish finish) {
    using Value = decltype(value(0));
    using Result = decltype(finish(0, value(0)));
    static_assert(sizeof(Result) <= sizeof(Value));
    // Slots are ordered so that neighbouring threads meet neighbouring slots, whatever they are doing.
    Value* slots = shared_memory<Value>();
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const Value of_warp = over_lanes(value(i), kAcross, kWarp, combine);
      if (threadIdx.x % kWarp < kAcross) slots[threadIdx.x / kWarp * kPositions + i * kAcross + column()] = of_warp;
    }
    __syncthreads();
    for (int slot = threadIdx.x; slot < kPositions; slot += blockDim.x) {
      Value all = slots[slot];
      for (int warp = 1; warp < blockDim.x / kWarp; ++warp) all = combine(all, slots[warp * kPositions + slot]);
      const Result result = finish(slot % kAcross * kWidth + slot / kAcross, all);
      memcpy(slots + slot, &result, sizeof result);
    }
    __syncthreads();
    Vector<Result> out;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) memcpy(out.at + i, slots + i * kAcross + column(), sizeof(Result));
    __syncthreads();  // before the room is used again
    return out;
  }

  template <typename T>
  struct Vector {
    T at[kWidth];
  };
};

}  // namespace detkd
