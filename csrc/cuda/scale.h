// Launcher of detkd::scale_ for CUDA.
#pragma once

#include <cuda_runtime_api.h>

#include "../ops/problem.h"

namespace detkd {

cudaError_t launch_scale(ScalarType type, void* gradient, int64_t count, const float* factor, cudaStream_t stream);

}  // namespace detkd
