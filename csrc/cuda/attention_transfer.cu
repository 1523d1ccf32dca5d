#include "attention_transfer.h"

#include "../kernels/attention_transfer.cuh"

namespace detkd {
namespace {

template <typename scalar_t>
cudaError_t launch(const AttentionTransferProblem& p, double* workspace, cudaStream_t stream) {
  const int64_t positions = p.maps.batch * p.maps.positions;
  const unsigned blocks = static_cast<unsigned>((positions + kThreads - 1) / kThreads);
  double* partials = workspace + 2 * positions;
  DETKD_LAUNCH(attention_map_kernel<scalar_t>, blocks, kThreads, stream, p, workspace);
  DETKD_LAUNCH(attention_compare_kernel, static_cast<unsigned>(p.maps.batch), kThreads, stream, p, workspace, partials);
  DETKD_LAUNCH(ordered_sum<double>, 1, kThreads, stream, partials, p.maps.batch, 1.0 / positions, p.maps.loss);
  if (p.maps.gradient != nullptr) {
    DETKD_LAUNCH(attention_slope_kernel<scalar_t>, blocks, kThreads, stream, p, workspace);
  }
  return cudaGetLastError();
}

}  // namespace

int64_t attention_transfer_workspace(const AttentionTransferProblem& p) {
  return p.maps.batch * (2 * p.maps.positions + 1);
}

cudaError_t launch_attention_transfer(const AttentionTransferProblem& p, double* workspace, cudaStream_t stream) {
  return for_type<__half, __nv_bfloat16>(p.maps.type, [&](auto x) { return launch<decltype(x)>(p, workspace, stream); });
}

}  // namespace detkd
