// Launcher of the CUDA kernels of detkd::attention_mse: a problem in, an error code out, no torch.
#pragma once

#include <cuda_runtime_api.h>

#include "../ops/problem.h"

namespace detkd {

// Doubles of scratch that a launch needs.
int64_t attention_mse_workspace(const AttentionMseProblem& problem);

cudaError_t launch_attention_mse(const AttentionMseProblem& problem, double* workspace, cudaStream_t stream);

}  // namespace detkd
