#include "../kernels/scale.cuh"

#include <algorithm>

#include "scale.h"

namespace detkd {

cudaError_t launch_scale(ScalarType type, void* gradient, int64_t count, const float* factor, cudaStream_t stream) {
  for_type_and_width(type, whole_vectors(address(gradient)), [&](auto x, auto width) {
    const int64_t blocks = std::min<int64_t>(divide_up(count, kThreads * width), 4096);
    DETKD_LAUNCH((scale_kernel<decltype(x), width>), static_cast<unsigned>(blocks), kThreads, 0, stream,
                 static_cast<decltype(x)*>(gradient), count, factor);
  });
  return cudaGetLastError();
}

}  // namespace detkd
