#include "../kernels/kl_div_columns.cuh"

#include "kl_div.h"

namespace detkd {
namespace {

bool column_vectors_align(const KlDivProblem& p) {
  const int64_t strides = p.inner | p.student_stride | p.teacher_stride | p.gradient_stride;
  return vectors_align(p) && whole_vectors(strides * bytes_of(p.type));
}

int64_t blocks_of(const KlDivProblem& p) {
  const int tile = !column_vectors_align(p) ? KlTile<1>::kPositions : KlTile<4>::kPositions;
  static_assert(KlTile<4>::kPositions == KlTile<8>::kPositions);
  return divide_up(p.outer.count * p.inner, tile);
}

template <typename scalar_t, int kWidth>
void launch(const KlDivProblem& p, unsigned blocks, double* partials, cudaStream_t stream) {
  const int64_t warps = divide_up(p.classes, kClassesOfWarp<kWidth>);
  if (warps * kWarp <= kMostColumnThreads) {
    const unsigned threads = static_cast<unsigned>(warps) * kWarp;
    DETKD_LAUNCH((kl_div_column_kernel<scalar_t, kWidth>), blocks, threads, column_room<kWidth>(threads), stream, p,
                 partials);
  } else {
    DETKD_LAUNCH((kl_div_long_column_kernel<scalar_t, kWidth>), blocks, kThreads, long_column_room<kWidth>(kThreads),
                 stream, p, partials);
  }
}

}  // namespace

int64_t kl_div_columns_workspace(const KlDivProblem& p) { return blocks_of(p); }

cudaError_t launch_kl_div_columns(const KlDivProblem& p, double* workspace, cudaStream_t stream) {
  const int64_t blocks = blocks_of(p);
  if (!fits_grid(blocks)) return cudaErrorInvalidConfiguration;
  for_type_and_width(p.type, column_vectors_align(p), [&](auto x, auto width) {
    launch<decltype(x), width>(p, static_cast<unsigned>(blocks), workspace, stream);
  });
  if (p.reduced) DETKD_LAUNCH(ordered_sum, 1, kMostThreads, 0, stream, workspace, blocks, p.loss_scale, p.loss);
  return cudaGetLastError();
}

}  // namespace detkd
