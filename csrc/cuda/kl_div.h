// Launcher of the CUDA kernels of detkd::kl_div_rows: pointers in, an error code out, no torch.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace detkd {

enum class ScalarType { kFloat, kHalf, kBFloat16 };

// `gradient` may be null. Sizes are those of the contiguous [outer, classes, inner] view; all are at least 1.
cudaError_t launch_kl_div(ScalarType type, const void* student, const void* teacher, int64_t outer, int64_t classes,
                          int64_t inner, float temperature, float* loss, void* gradient, cudaStream_t stream);

}  // namespace detkd
