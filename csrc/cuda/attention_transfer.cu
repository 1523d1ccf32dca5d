#include "attention_transfer.h"

#include "../kernels/attention_transfer.cuh"

namespace detkd {
namespace {

template <typename scalar_t, int kWidth>
void launch(const AttentionTransferProblem& p, double* maps, double* partials, float* slopes, cudaStream_t stream) {
  const unsigned blocks = static_cast<unsigned>(p.maps.batch * tiles_of_image<kWidth>(p.maps.positions));
  const unsigned room = MapTile<kWidth>::slots(kThreads) * sizeof(PairOfSums);
  DETKD_LAUNCH((attention_map_kernel<scalar_t, kWidth>), blocks, kThreads, room, stream, p, maps);
  DETKD_LAUNCH(attention_compare_kernel, static_cast<unsigned>(p.maps.batch), kMostThreads, 0, stream, p, maps, slopes,
               partials);
  if (p.maps.gradient == nullptr) return;
  DETKD_LAUNCH((attention_slope_kernel<scalar_t, kWidth>), blocks, kThreads, 0, stream, p, slopes);
}

}  // namespace

// Two maps, one partial sum an image, and float32 slopes.
int64_t attention_transfer_workspace(const AttentionTransferProblem& p) {
  return p.maps.batch * (3 * p.maps.positions + 1);
}

cudaError_t launch_attention_transfer(const AttentionTransferProblem& p, double* workspace, cudaStream_t stream) {
  const int64_t positions = p.maps.batch * p.maps.positions;
  if (!fits_grid(divide_up(positions, kWarp) + p.maps.batch)) return cudaErrorInvalidConfiguration;
  double* partials = workspace + 2 * positions;
  float* slopes = reinterpret_cast<float*>(partials + p.maps.batch);
  for_type_and_width(p.maps.type, vectors_align(p.maps),
                     [&](auto x, auto width) { launch<decltype(x), width>(p, workspace, partials, slopes, stream); });
  DETKD_LAUNCH(ordered_sum, 1, kMostThreads, 0, stream, partials, p.maps.batch, 1.0 / positions, p.maps.loss);
  return cudaGetLastError();
}

}  // namespace detkd
