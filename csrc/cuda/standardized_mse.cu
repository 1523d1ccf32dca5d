#include "standardized_mse.h"

#include "../kernels/standardized_mse.cuh"

namespace detkd {
namespace {

template <typename scalar_t>
cudaError_t launch(const StandardizedMseProblem& p, double* workspace, cudaStream_t stream) {
  const FeatureMaps& maps = p.maps;
  DETKD_LAUNCH(standardized_mse_kernel<scalar_t>, static_cast<unsigned>(maps.channels), kThreads, stream, p, workspace);
  const double mean = 1.0 / (static_cast<double>(maps.batch) * maps.channels * maps.positions);
  DETKD_LAUNCH(ordered_sum<double>, 1, kThreads, stream, workspace, maps.channels, mean, maps.loss);
  return cudaGetLastError();
}

}  // namespace

int64_t standardized_mse_workspace(const StandardizedMseProblem& p) { return p.maps.channels; }

cudaError_t launch_standardized_mse(const StandardizedMseProblem& p, double* workspace, cudaStream_t stream) {
  return for_type<__half, __nv_bfloat16>(p.maps.type, [&](auto x) { return launch<decltype(x)>(p, workspace, stream); });
}

}  // namespace detkd
