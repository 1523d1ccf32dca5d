#include "standardized_mse.h"

#include "../kernels/standardized_mse.cuh"

namespace detkd {
namespace {

// Blocks that share a channel.
template <int kWidth>
int64_t parts_of(const FeatureMaps& maps) {
  return divide_up(maps.batch * maps.positions / kWidth, kVectorsOfBlock<kWidth>);
}

template <typename scalar_t, int kWidth>
void launch(const StandardizedMseProblem& p, double* workspace, double* losses, cudaStream_t stream) {
  const FeatureMaps& maps = p.maps;
  const int64_t parts = parts_of<kWidth>(maps);
  const unsigned blocks = static_cast<unsigned>(maps.channels * parts);
  Moments* moments = reinterpret_cast<Moments*>(workspace);
  ChannelSlope* slopes = reinterpret_cast<ChannelSlope*>(moments + maps.channels * parts);
  DETKD_LAUNCH((moments_kernel<scalar_t, kWidth>), blocks, kThreads, 0, stream, maps, parts, moments);
  DETKD_LAUNCH(standardize_kernel, static_cast<unsigned>(divide_up(maps.channels, kWarp)), kWarp, 0, stream, p, parts,
               moments, slopes, losses);
  if (maps.gradient == nullptr) return;
  DETKD_LAUNCH((standardized_slope_kernel<scalar_t, kWidth>), blocks, kThreads, 0, stream, maps, parts, slopes);
}

}  // namespace

// A loss and a slope of each channel, and the moments of as many parts as there are at most.
int64_t standardized_mse_workspace(const StandardizedMseProblem& p) {
  constexpr int64_t kMoments = sizeof(Moments) / sizeof(double),
                    kSlope = divide_up(sizeof(ChannelSlope), sizeof(double));
  return p.maps.channels * (1 + kSlope + kMoments * parts_of<1>(p.maps));
}

cudaError_t launch_standardized_mse(const StandardizedMseProblem& p, double* workspace, cudaStream_t stream) {
  const FeatureMaps& maps = p.maps;
  if (!fits_grid(maps.channels * parts_of<1>(maps))) return cudaErrorInvalidConfiguration;
  double* losses = workspace;
  for_type_and_width(maps.type, vectors_align(maps), [&](auto x, auto width) {
    launch<decltype(x), width>(p, workspace + maps.channels, losses, stream);
  });
  const double mean = 1.0 / (static_cast<double>(maps.batch) * maps.channels * maps.positions);
  DETKD_LAUNCH(ordered_sum, 1, kMostThreads, 0, stream, losses, maps.channels, mean, maps.loss);
  return cudaGetLastError();
}

}  // namespace detkd
