// Launchers of the CUDA kernels of detkd::kl_div: a problem in, an error code out, no torch.
#pragma once

#include <cuda_runtime_api.h>

#include "../ops/problem.h"

namespace detkd {

// Classes are neighbours (inner == 1), or positions are.
int64_t kl_div_rows_workspace(const KlDivProblem& problem);
int64_t kl_div_columns_workspace(const KlDivProblem& problem);
cudaError_t launch_kl_div_rows(const KlDivProblem& problem, double* workspace, cudaStream_t stream);
cudaError_t launch_kl_div_columns(const KlDivProblem& problem, double* workspace, cudaStream_t stream);

// Doubles of scratch that a launch needs.
inline int64_t kl_div_workspace(const KlDivProblem& problem) {
  return problem.inner == 1 ? kl_div_rows_workspace(problem) : kl_div_columns_workspace(problem);
}

inline cudaError_t launch_kl_div(const KlDivProblem& problem, double* workspace, cudaStream_t stream) {
  return problem.inner == 1 ? launch_kl_div_rows(problem, workspace, stream)
                            : launch_kl_div_columns(problem, workspace, stream);
}

}  // namespace detkd
