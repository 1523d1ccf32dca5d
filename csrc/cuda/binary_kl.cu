#include "binary_kl.h"

#include <algorithm>

#include "../kernels/binary_kl.cuh"

namespace detkd {
namespace {

int64_t blocks_of(const BinaryKlProblem& p) {
  return std::min<int64_t>((p.outer.count * p.inner + kThreads - 1) / kThreads, 2048);
}

template <typename scalar_t>
cudaError_t launch(const BinaryKlProblem& p, double* workspace, cudaStream_t stream) {
  const unsigned blocks = static_cast<unsigned>(blocks_of(p));
  DETKD_LAUNCH(binary_kl_kernel<scalar_t>, blocks, kThreads, stream, p, workspace);
  if (p.reduced) DETKD_LAUNCH(ordered_sum<double>, 1, kThreads, stream, workspace, blocks, p.loss_scale, p.loss);
  return cudaGetLastError();
}

}  // namespace

int64_t binary_kl_workspace(const BinaryKlProblem& p) { return blocks_of(p); }

cudaError_t launch_binary_kl(const BinaryKlProblem& p, double* workspace, cudaStream_t stream) {
  return for_type<__half, __nv_bfloat16>(p.type, [&](auto x) { return launch<decltype(x)>(p, workspace, stream); });
}

}  // namespace detkd
