#include "attention_mse.h"

#include "../kernels/attention_mse.cuh"

namespace detkd {
namespace {

int64_t blocks_of(const AttentionMseProblem& p) {
  return (p.maps.batch * p.maps.positions + kThreads - 1) / kThreads;
}

template <typename scalar_t>
cudaError_t launch(const AttentionMseProblem& p, double* workspace, cudaStream_t stream) {
  const FeatureMaps& maps = p.maps;
  const FocalRoom room = FocalRoom::in(workspace, maps);
  const unsigned blocks = static_cast<unsigned>(blocks_of(p)), images = static_cast<unsigned>(maps.batch);
  const unsigned planes = static_cast<unsigned>(maps.batch * maps.channels);
  DETKD_LAUNCH(focal_space_kernel<scalar_t>, blocks, kThreads, stream, p, room);
  DETKD_LAUNCH(focal_depth_kernel<scalar_t>, planes, kThreads, stream, p, room);
  DETKD_LAUNCH(focal_attention_kernel, images, kThreads, stream, p, room);
  DETKD_LAUNCH(focal_error_kernel<scalar_t>, blocks, kThreads, stream, p, room);
  DETKD_LAUNCH(ordered_sum<double>, 1, kThreads, stream, room.partials, maps.batch + blocks, 1.0 / maps.batch, maps.loss);
  return cudaGetLastError();
}

}  // namespace

int64_t attention_mse_workspace(const AttentionMseProblem& p) {
  return 3 * p.maps.batch * (p.maps.positions + p.maps.channels) + p.maps.batch + blocks_of(p);
}

cudaError_t launch_attention_mse(const AttentionMseProblem& p, double* workspace, cudaStream_t stream) {
  return for_type<__half, __nv_bfloat16>(p.maps.type, [&](auto x) { return launch<decltype(x)>(p, workspace, stream); });
}

}  // namespace detkd
