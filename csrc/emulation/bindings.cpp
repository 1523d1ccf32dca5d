// The launchers as plain functions, for ctypes: input without gaps.
#include <vector>

#include "../cuda/attention_mse.h"
#include "../cuda/attention_transfer.h"
#include "../cuda/binary_kl.h"
#include "../cuda/kl_div.h"
#include "../cuda/scale.h"
#include "../cuda/standardized_mse.h"

namespace {

// `outer` runs of `step` logits and `inner` positions each.
void fill(detkd::LogitsProblem& p, int type, const void* student, const void* teacher, void* gradient,
          const float* weight, float* loss, int64_t outer, int64_t step, int64_t inner, float temperature, float scale,
          bool reduced) {
  p.type = static_cast<detkd::ScalarType>(type);
  p.student = student;
  p.teacher = teacher;
  p.gradient = gradient;
  p.weight = weight;
  p.loss = loss;
  p.outer.ndim = 1;
  p.outer.count = p.outer.size[0] = outer;
  p.outer.student[0] = p.outer.teacher[0] = p.outer.gradient[0] = step;
  p.outer.weight[0] = p.outer.loss[0] = inner;
  p.inner = inner;
  p.weight_inner = 1;
  p.reduced = reduced;
  p.temperature = temperature;
  p.loss_scale = p.gradient_scale = scale;
}

}  // namespace

extern "C" int emulate_kl_div(int type, const void* student, const void* teacher, void* gradient, const float* weight,
                              float* loss, int64_t outer, int64_t classes, int64_t inner, float temperature,
                              float scale, bool reduced) {
  detkd::KlDivProblem p;
  fill(p, type, student, teacher, gradient, weight, loss, outer, classes * inner, inner, temperature, scale, reduced);
  p.classes = classes;
  p.student_stride = p.teacher_stride = p.gradient_stride = inner;
  std::vector<float> values(reduced ? outer * inner : 0);
  return detkd::launch_kl_div(p, reduced ? values.data() : nullptr, nullptr);
}

extern "C" int emulate_scale(int type, void* gradient, int64_t count, const float* factor) {
  return detkd::launch_scale(static_cast<detkd::ScalarType>(type), gradient, count, factor, nullptr);
}

extern "C" int emulate_binary_kl(int type, const void* student, const void* teacher, void* gradient, const float* weight,
                                 float* loss, int64_t outer, int64_t inner, float temperature, float beta,
                                 bool cross_entropy, float scale, bool reduced) {
  detkd::BinaryKlProblem p;
  fill(p, type, student, teacher, gradient, weight, loss, outer, inner, inner, temperature, scale, reduced);
  p.cross_entropy = cross_entropy;
  p.beta = beta;
  std::vector<double> workspace(detkd::binary_kl_workspace(p));
  return detkd::launch_binary_kl(p, workspace.data(), nullptr);
}

// `op` is 0 attention_transfer (first: p), 1 attention_mse (first: temperature, second: attention_gain) or
// 2 standardized_mse (first: eps).
extern "C" int emulate_maps(int op, int type, const void* student, const void* teacher, void* gradient,
                            const float* weight, float* loss, int64_t batch, int64_t channels, int64_t teacher_channels,
                            int64_t positions, float first, float second, float scale) {
  detkd::FeatureMaps maps;
  maps.type = static_cast<detkd::ScalarType>(type);
  maps.student = student;
  maps.teacher = teacher;
  maps.gradient = gradient;
  maps.loss = loss;
  maps.batch = batch;
  maps.channels = channels;
  maps.positions = positions;
  maps.student_channel = maps.teacher_channel = positions;
  maps.student_batch = channels * positions;
  maps.teacher_batch = teacher_channels * positions;
  maps.gradient_scale = scale;
  std::vector<double> workspace;
  if (op == 0) {
    const detkd::AttentionTransferProblem p{maps, teacher_channels, first};
    workspace.resize(detkd::attention_transfer_workspace(p));
    return detkd::launch_attention_transfer(p, workspace.data(), nullptr);
  }
  if (op == 1) {
    const detkd::AttentionMseProblem p{maps, weight, first, second};
    workspace.resize(detkd::attention_mse_workspace(p));
    return detkd::launch_attention_mse(p, workspace.data(), nullptr);
  }
  const detkd::StandardizedMseProblem p{maps, first};
  workspace.resize(detkd::standardized_mse_workspace(p));
  return detkd::launch_standardized_mse(p, workspace.data(), nullptr);
}
