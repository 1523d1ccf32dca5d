#include "scale.h"

#include <algorithm>

#include "../kernels/device.cuh"

namespace detkd {
namespace {

// The factor is read on the device, so that the host needs not wait for it; a factor of 1 leaves everything as it is.
template <typename scalar_t>
__global__ void scale_kernel(scalar_t* gradient, int64_t count, const float* factor) {
  const float by = *factor;
  if (by == 1.0f) return;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += step) {
    put(gradient + i, to_float(gradient[i]) * by);
  }
}

template <typename scalar_t>
cudaError_t launch(void* gradient, int64_t count, const float* factor, cudaStream_t stream) {
  const int64_t blocks = std::min<int64_t>((count + kThreads - 1) / kThreads, 4096);
  DETKD_LAUNCH(scale_kernel, static_cast<unsigned>(blocks), kThreads, stream, static_cast<scalar_t*>(gradient), count,
               factor);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_scale(ScalarType type, void* gradient, int64_t count, const float* factor, cudaStream_t stream) {
  return for_type<__half, __nv_bfloat16>(
      type, [&](auto x) { return launch<decltype(x)>(gradient, count, factor, stream); });
}

}  // namespace detkd
