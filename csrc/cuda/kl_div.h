// Launcher of the CUDA kernels of detkd::kl_div: a problem in, an error code out, no torch.
#pragma once

#include <cuda_runtime_api.h>

#include "../ops/problem.h"

namespace detkd {

// `values` has room for a float32 of each position where the loss is reduced, and is null where it is not.
cudaError_t launch_kl_div(const KlDivProblem& problem, float* values, cudaStream_t stream);

}  // namespace detkd
