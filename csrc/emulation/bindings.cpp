#include "bindings.h"

#include <utility>
#include <vector>

#include "../cuda/attention_mse.h"
#include "../cuda/attention_transfer.h"
#include "../cuda/binary_kl.h"
#include "../cuda/kl_div.h"
#include "../cuda/scale.h"
#include "../cuda/standardized_mse.h"
#include "cuda_runtime_api.h"

namespace {

// An even number of runs is described by two dimensions, and one run by none.
void fill(detkd::LogitsProblem& p, const Logits& x, int64_t gradient_step) {
  p.type = static_cast<detkd::ScalarType>(x.type);
  p.student = x.student;
  p.teacher = x.teacher;
  p.gradient = x.gradient;
  p.weight = x.weight;
  p.loss = x.loss;
  p.outer.count = x.outer;
  const int64_t neighbours = x.outer % 2 == 0 ? 2 : x.outer;
  for (const auto& [size, runs] : {std::pair{x.outer / neighbours, neighbours}, std::pair{neighbours, int64_t{1}}}) {
    if (size == 1) continue;
    const int d = p.outer.ndim++;
    p.outer.size[d] = size;
    p.outer.student[d] = p.outer.teacher[d] = runs * x.step;
    p.outer.gradient[d] = runs * gradient_step;
    p.outer.weight[d] = p.outer.loss[d] = runs * x.inner;
  }
  p.inner = x.inner;
  p.weight_inner = 1;
  p.reduced = x.reduced;
  p.temperature = x.temperature;
  p.loss_scale = p.gradient_scale = x.scale;
}

detkd::FeatureMaps maps_of(const Maps& x) {
  return {static_cast<detkd::ScalarType>(x.type), x.student, x.teacher, x.gradient, x.loss, x.batch, x.channels,
          x.positions, x.student_batch, x.student_channel, x.teacher_batch, x.teacher_channel, x.scale};
}

int64_t doubles;

// In scratch of just the size that was asked for.
template <typename Problem>
int run(const Problem& p, int64_t (*room)(const Problem&), cudaError_t (*launch)(const Problem&, double*, cudaStream_t)) {
  doubles = room(p);
  std::vector<double> workspace(doubles);
  return launch(p, workspace.data(), nullptr);
}

}  // namespace

int emulate_kl_div(const Logits* x, int64_t classes, int64_t class_step) {
  detkd::KlDivProblem p;
  fill(p, *x, classes * x->inner);
  p.classes = classes;
  p.mask = x->mask;
  for (int d = 0; d < p.outer.ndim; ++d) p.outer.mask[d] = p.outer.weight[d] * classes;
  p.student_stride = p.teacher_stride = class_step;
  p.gradient_stride = x->inner;
  return run(p, &detkd::kl_div_workspace, &detkd::launch_kl_div);
}

int emulate_binary_kl(const Logits* x, float beta, bool cross_entropy) {
  detkd::BinaryKlProblem p;
  fill(p, *x, x->inner);
  p.cross_entropy = cross_entropy;
  p.beta = beta;
  return run(p, &detkd::binary_kl_workspace, &detkd::launch_binary_kl);
}

int emulate_attention_transfer(const Maps* x, float power) {
  const detkd::AttentionTransferProblem p{maps_of(*x), x->teacher_channels, power};
  return run(p, &detkd::attention_transfer_workspace, &detkd::launch_attention_transfer);
}

int emulate_attention_mse(const Maps* x, float temperature, float attention_gain) {
  const detkd::AttentionMseProblem p{maps_of(*x), x->weight, temperature, attention_gain};
  return run(p, &detkd::attention_mse_workspace, &detkd::launch_attention_mse);
}

int emulate_standardized_mse(const Maps* x, float eps) {
  const detkd::StandardizedMseProblem p{maps_of(*x), eps};
  return run(p, &detkd::standardized_mse_workspace, &detkd::launch_standardized_mse);
}

int emulate_scale(int type, void* gradient, int64_t count, const float* factor) {
  return detkd::launch_scale(static_cast<detkd::ScalarType>(type), gradient, count, factor, nullptr);
}

int64_t emulated_workspace() { return doubles * static_cast<int64_t>(sizeof(double)); }

const char* emulated_launches() {
  static std::string text;
  text = emulation::take_launches();
  return text.c_str();
}
