// CUDA kernel of detkd::scale_: multiplies a gradient where it lies.
#pragma once

#include "vectors.cuh"

namespace detkd {

// The factor is read on the device, so that the host needs not wait for it; a factor of 1 leaves everything as it is.
template <typename scalar_t, int kWidth>
__global__ void __launch_bounds__(kThreads) scale_kernel(scalar_t* gradient, int64_t count, const float* factor) {
  const float by = *factor;
  if (by == 1.0f) return;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads * kWidth;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWidth; i < count; i += step) {
    float x[kWidth];
    load_run<kWidth>(gradient + i, count - i, x);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) x[k] *= by;
    store_run<kWidth>(gradient + i, count - i, x);
  }
}

}  // namespace detkd
