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

// One partial sum an image, float32 slopes, and two maps, which are needed until slopes are known and may lie where the
// gradient will.
int64_t attention_transfer_workspace(const AttentionTransferProblem& p) {
  const int64_t positions = p.maps.batch * p.maps.positions;
  return p.maps.batch + divide_up(positions, 2) + (room_in_gradient(p.maps, 2 * positions) == nullptr ? 2 * positions : 0);
}

cudaError_t launch_attention_transfer(const AttentionTransferProblem& p, double* workspace, cudaStream_t stream) {
  const int64_t positions = p.maps.batch * p.maps.positions;
  if (!fits_grid(divide_up(positions, kWarp) + p.maps.batch)) return cudaErrorInvalidConfiguration;
  float* slopes = reinterpret_cast<float*>(workspace + p.maps.batch);
  double* maps = room_in_gradient(p.maps, 2 * positions);
  if (maps == nullptr) maps = workspace + p.maps.batch + divide_up(positions, 2);
  for_type_and_width(p.maps.type, vectors_align(p.maps),
                     [&](auto x, auto width) { launch<decltype(x), width>(p, maps, workspace, slopes, stream); });
  DETKD_LAUNCH(ordered_sum, 1, kMostThreads, 0, stream, workspace, p.maps.batch, 1.0 / positions, p.maps.loss);
  return cudaGetLastError();
}

}  // namespace detkd
