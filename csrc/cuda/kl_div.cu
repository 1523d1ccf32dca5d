#include "kl_div.h"

#include "../kernels/kl_div.cuh"

namespace detkd {
namespace {

template <typename Group, typename scalar_t>
cudaError_t launch(const KlDivProblem& p, float* values, cudaStream_t stream) {
  const int64_t positions = p.outer.count * p.inner, blocks = (positions * Group::kLanes + kThreads - 1) / kThreads;
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  DETKD_LAUNCH((kl_div_kernel<Group, scalar_t>), static_cast<unsigned>(blocks), kThreads, stream, p, values);
  if (values != nullptr) DETKD_LAUNCH(ordered_sum<float>, 1, kThreads, stream, values, positions, p.loss_scale, p.loss);
  return cudaGetLastError();
}

template <typename scalar_t>
cudaError_t launch_grouped(const KlDivProblem& p, float* values, cudaStream_t stream) {
  return p.inner == 1 ? launch<WarpGroup, scalar_t>(p, values, stream) : launch<ThreadGroup, scalar_t>(p, values, stream);
}

}  // namespace

cudaError_t launch_kl_div(const KlDivProblem& p, float* values, cudaStream_t stream) {
  switch (p.type) {
    case ScalarType::kFloat:
      return launch_grouped<float>(p, values, stream);
    case ScalarType::kHalf:
      return launch_grouped<__half>(p, values, stream);
    case ScalarType::kBFloat16:
      return launch_grouped<__nv_bfloat16>(p, values, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace detkd
