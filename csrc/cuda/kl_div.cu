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

}  // namespace

cudaError_t launch_kl_div(const KlDivProblem& p, float* values, cudaStream_t stream) {
  return for_type<__half, __nv_bfloat16>(p.type, [&](auto x) {
    return p.inner == 1 ? launch<WarpGroup, decltype(x)>(p, values, stream)
                        : launch<ThreadGroup, decltype(x)>(p, values, stream);
  });
}

}  // namespace detkd
