#include "binary_kl.h"

#include <algorithm>

#include "../kernels/binary_kl.cuh"

namespace detkd {
namespace {

// A run of neighbours may end within a vector; only where several runs follow each other must each start at one.
int64_t blocks_of(const BinaryKlProblem& p) {
  const int64_t width = vectors_align(p) ? kVectorBytes / bytes_of(p.type) : 1;
  return std::min<int64_t>(divide_up(p.outer.count * divide_up(p.inner, width), kThreads), 2048);
}

}  // namespace

int64_t binary_kl_workspace(const BinaryKlProblem& p) { return blocks_of(p); }

cudaError_t launch_binary_kl(const BinaryKlProblem& p, double* workspace, cudaStream_t stream) {
  const unsigned blocks = static_cast<unsigned>(blocks_of(p));
  for_type_and_width(p.type, vectors_align(p), [&](auto x, auto width) {
    DETKD_LAUNCH((binary_kl_kernel<decltype(x), width>), blocks, kThreads, 0, stream, p, workspace);
  });
  if (p.reduced) DETKD_LAUNCH(ordered_sum, 1, kMostThreads, 0, stream, workspace, blocks, p.loss_scale, p.loss);
  return cudaGetLastError();
}

}  // namespace detkd
