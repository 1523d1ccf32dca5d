// Launcher of the CUDA kernels of detkd::standardized_mse: a problem in, an error code out, no torch.
#pragma once

#include <cuda_runtime_api.h>

#include "../ops/problem.h"

namespace detkd {

// Doubles of scratch that a launch needs.
int64_t standardized_mse_workspace(const StandardizedMseProblem& problem);

cudaError_t launch_standardized_mse(const StandardizedMseProblem& problem, double* workspace, cudaStream_t stream);

}  // namespace detkd
