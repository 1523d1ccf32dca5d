// detkd::standardized_mse on the CPU: registration, and the division of work among threads.
#include <torch/library.h>

#include "../ops/feature_maps.h"
#include "huge_pages.h"
#include "kernels.h"
#include "parallel.h"

namespace {

std::tuple<at::Tensor, at::Tensor> standardized_mse(const at::Tensor& student, const at::Tensor& teacher, double eps,
                                                    bool with_gradient) {
  const double elements = static_cast<double>(student.numel());
  return detkd::call_on_maps(
      "standardized_mse", student, teacher, true, elements, with_gradient, [&](const detkd::FeatureMaps& maps) {
        detkd::prefer_huge_pages(maps.gradient, student.numel() * detkd::bytes_of(maps.type));
        const detkd::StandardizedMseProblem p{maps, static_cast<float>(eps)};
        const double total = detkd::sum_over(1, maps.channels, 1, [&](int64_t begin, int64_t end) {
          return detkd::kernels().standardized_mse(p, begin, end);
        });
        *maps.loss = static_cast<float>(total / elements);
      });
}

}  // namespace

TORCH_LIBRARY_IMPL(detkd, CPU, m) { m.impl("standardized_mse", &standardized_mse); }
