#include "kl_div.h"

#include "../kernels/kl_div.cuh"

namespace detkd {
namespace {

constexpr int kThreads = 256;

template <typename Group, typename scalar_t>
cudaError_t launch(const void* student, const void* teacher, KlDivShape shape, float temperature, float* loss,
                   void* gradient, cudaStream_t stream) {
  const int64_t blocks = (shape.outer * shape.inner * Group::kLanes + kThreads - 1) / kThreads;
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  kl_div_kernel<Group, scalar_t><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(
      static_cast<const scalar_t*>(student), static_cast<const scalar_t*>(teacher), shape, temperature, loss,
      static_cast<scalar_t*>(gradient));
  return cudaGetLastError();
}

template <typename scalar_t>
cudaError_t launch_grouped(const void* student, const void* teacher, KlDivShape shape, float temperature, float* loss,
                           void* gradient, cudaStream_t stream) {
  return shape.inner == 1 ? launch<WarpGroup, scalar_t>(student, teacher, shape, temperature, loss, gradient, stream)
                          : launch<ThreadGroup, scalar_t>(student, teacher, shape, temperature, loss, gradient, stream);
}

}  // namespace

cudaError_t launch_kl_div(ScalarType type, const void* student, const void* teacher, int64_t outer, int64_t classes,
                          int64_t inner, float temperature, float* loss, void* gradient, cudaStream_t stream) {
  const KlDivShape shape{outer, classes, inner};
  switch (type) {
    case ScalarType::kFloat:
      return launch_grouped<float>(student, teacher, shape, temperature, loss, gradient, stream);
    case ScalarType::kHalf:
      return launch_grouped<__half>(student, teacher, shape, temperature, loss, gradient, stream);
    case ScalarType::kBFloat16:
      return launch_grouped<__nv_bfloat16>(student, teacher, shape, temperature, loss, gradient, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace detkd
