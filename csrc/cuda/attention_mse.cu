#include "attention_mse.h"

#include "../kernels/attention_mse.cuh"

namespace detkd {
namespace {

template <int kWidth>
int64_t tiles_of(const FeatureMaps& maps) {
  return maps.batch * tiles_of_image<kWidth>(maps.positions);
}

template <typename scalar_t, int kWidth>
void launch(const AttentionMseProblem& p, double* workspace, cudaStream_t stream) {
  const int64_t tiles = tiles_of<kWidth>(p.maps), sums = 2 * p.maps.batch + tiles;
  const unsigned blocks = static_cast<unsigned>(tiles), axes = static_cast<unsigned>(2 * p.maps.batch);
  const FocalRoom room = FocalRoom::in(workspace, p.maps, tiles_of<1>(p.maps));
  const unsigned shared = MapTile<kWidth>::slots(kThreads) * sizeof(PairOfSums);
  DETKD_LAUNCH((focal_sums_kernel<scalar_t, kWidth>), blocks, kThreads, shared, stream, p, room);
  DETKD_LAUNCH(focal_attention_kernel, axes, kMostThreads, 0, stream, p, room, tiles / p.maps.batch);
  DETKD_LAUNCH((focal_error_kernel<scalar_t, kWidth>), blocks, kThreads, 0, stream, p, room);
  DETKD_LAUNCH(ordered_sum, 1, kMostThreads, 0, stream, room.partials, sums, 1.0 / p.maps.batch, p.maps.loss);
}

}  // namespace

// Laid out for the smallest tiles, whichever are launched.
int64_t attention_mse_workspace(const AttentionMseProblem& p) {
  return FocalRoom::doubles(p.maps, tiles_of<1>(p.maps));
}

cudaError_t launch_attention_mse(const AttentionMseProblem& p, double* workspace, cudaStream_t stream) {
  if (!fits_grid(tiles_of<1>(p.maps))) return cudaErrorInvalidConfiguration;
  return for_type_and_width(p.maps.type, vectors_align(p.maps), [&](auto x, auto width) {
    launch<decltype(x), width>(p, workspace, stream);
    return cudaGetLastError();
  });
}

}  // namespace detkd
