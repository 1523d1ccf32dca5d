// Launcher of the CUDA kernels of detkd::binary_kl: a problem in, an error code out, no torch.
#pragma once

#include <cuda_runtime_api.h>

#include "../ops/problem.h"

namespace detkd {

// Doubles of scratch that a launch needs.
int64_t binary_kl_workspace(const BinaryKlProblem& problem);

cudaError_t launch_binary_kl(const BinaryKlProblem& problem, double* workspace, cudaStream_t stream);

}  // namespace detkd
