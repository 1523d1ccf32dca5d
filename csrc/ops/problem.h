// What one call of an op asks of a kernel: pointers, sizes and strides, without torch. The CPU kernels, the CUDA
// launchers and the host emulation of the CUDA kernels all take these structs.
//
// Rules for every problem: sizes are at least 1; strides and offsets count elements, not bytes, in 64 bits; `gradient` is
// null where none is wanted; kernels compute in float32 and write every element of `loss` and `gradient` that they own.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define DETKD_ANYWHERE __host__ __device__
#else
#define DETKD_ANYWHERE
#endif

namespace detkd {

enum class ScalarType : int { kFloat, kHalf, kBFloat16 };

constexpr int64_t bytes_of(ScalarType type) { return type == ScalarType::kFloat ? 4 : 2; }

// Calls call(float{}), call(Half{}) or call(BFloat16{}), whatever a kernel's 16-bit types are.
template <typename Half, typename BFloat16, typename Call>
auto for_type(ScalarType type, const Call& call) {
  switch (type) {
    case ScalarType::kHalf:
      return call(Half{});
    case ScalarType::kBFloat16:
      return call(BFloat16{});
    default:
      return call(float{});
  }
}

constexpr int kMaxDims = 6;

// The dimensions around a kernel's own ones, in row-major order, with the stride of each tensor along them.
struct Outer {
  int ndim = 0;
  int64_t count = 1;  // product of the sizes
  int64_t size[kMaxDims] = {};
  int64_t student[kMaxDims] = {}, teacher[kMaxDims] = {}, gradient[kMaxDims] = {}, weight[kMaxDims] = {},
          mask[kMaxDims] = {}, loss[kMaxDims] = {};
};

struct Offsets {
  int64_t student = 0, teacher = 0, gradient = 0, weight = 0, mask = 0, loss = 0;
};

// Where the tensors stand at the index-th of the outer dimensions' positions.
DETKD_ANYWHERE inline Offsets offsets(const Outer& outer, int64_t index) {
  Offsets at;
  for (int d = outer.ndim - 1; d >= 0; --d) {
    const int64_t i = d == 0 ? index : index % outer.size[d];
    if (d != 0) index /= outer.size[d];
    at.student += i * outer.student[d];
    at.teacher += i * outer.teacher[d];
    at.gradient += i * outer.gradient[d];
    at.weight += i * outer.weight[d];
    at.mask += i * outer.mask[d];
    at.loss += i * outer.loss[d];
  }
  return at;
}

// What kl_div and binary_kl share.
struct LogitsProblem {
  ScalarType type = ScalarType::kFloat;
  const void* student = nullptr;
  const void* teacher = nullptr;
  void* gradient = nullptr;
  const float* weight = nullptr;  // null: 1 everywhere
  float* loss = nullptr;          // reduced: one float, loss_scale * sum of values; else the values of positions
  Outer outer;
  int64_t inner = 1;
  int64_t weight_inner = 0, loss_inner = 1;  // strides along inner
  bool reduced = true;
  float temperature = 1, loss_scale = 1, gradient_scale = 1;
};

// detkd::kl_div. One position is `classes` logits; positions number outer.count * inner.
//
//   value    = w * T^2 * sum_c p_t (log p_t - log p_s),  p = softmax(logits / T)
//   gradient = w * T * (p_s - p_t) * gradient_scale
//
// Either inner == 1 and the classes are neighbours (all class strides 1), or positions along `inner` are neighbours in
// student, teacher and gradient (stride 1 along inner) and class strides are whatever they are.
// A position of weight 0 counts 0 with gradient 0, whatever it holds. So does one whose student or teacher is -inf
// throughout. Else a NaN (or +inf) makes value and gradient of its position NaN. Terms with p_t = 0 count 0.
//
// Where there is a mask, classes are neighbours, also in it: those of mask 0 are as if they were not there, whatever they
// hold, and their gradient is 0.
struct KlDivProblem : LogitsProblem {
  int64_t classes = 1;
  int64_t student_stride = 1, teacher_stride = 1, gradient_stride = 1;  // between classes
  const float* mask = nullptr;  // null: every class counts
};

// detkd::binary_kl. Every logit is a Bernoulli variable of its own, a = sigmoid(t / T), b = sigmoid(s / T).
//
//   D        = a log(a / b) + (1 - a) log((1 - a) / (1 - b))      (kl), or -a log b - (1 - a) log(1 - b)   (bce)
//   value    = w * T^2 * D * |b - a|^beta
//   gradient = w * T * ((b - a) |b - a|^beta + D beta |b - a|^(beta - 1) sign(b - a) b (1 - b)) * gradient_scale
//
// where the second summand is 0 at b = a. Student, teacher and gradient have stride 1 along inner.
// A logit of weight 0 counts 0 with gradient 0; infinite logits are probabilities 0 and 1; NaN stays NaN.
struct BinaryKlProblem : LogitsProblem {
  bool cross_entropy = false;
  float beta = 0;
};

// The three ops on feature maps [batch, channels, positions], positions (H * W) being neighbours. The gradient is laid
// out [batch, channels, positions] without gaps.
struct FeatureMaps {
  ScalarType type = ScalarType::kFloat;
  const void* student = nullptr;
  const void* teacher = nullptr;
  void* gradient = nullptr;
  float* loss = nullptr;  // one float
  int64_t batch = 1, channels = 1, positions = 1;
  int64_t student_batch = 0, student_channel = 0, teacher_batch = 0, teacher_channel = 0;  // strides
  float gradient_scale = 1;  // multiplies the gradient and nothing else
};

template <typename T>
DETKD_ANYWHERE const T* student_plane(const FeatureMaps& maps, int64_t image, int64_t channel) {
  return static_cast<const T*>(maps.student) + image * maps.student_batch + channel * maps.student_channel;
}
template <typename T>
DETKD_ANYWHERE const T* teacher_plane(const FeatureMaps& maps, int64_t image, int64_t channel) {
  return static_cast<const T*>(maps.teacher) + image * maps.teacher_batch + channel * maps.teacher_channel;
}
template <typename T>
DETKD_ANYWHERE T* gradient_plane(const FeatureMaps& maps, int64_t image, int64_t channel) {
  return static_cast<T*>(maps.gradient) + (image * maps.channels + channel) * maps.positions;
}

// detkd::attention_transfer. A(f) = sum_c |f_c|^p, normalised over positions to length 1 (divided by max(length, 1e-12)).
//
//   loss = mean over batch and positions of (A(student) - A(teacher))^2
//
// The gradient leaves out the mean's 1 / (batch * positions): gradient_scale carries it.
struct AttentionTransferProblem {
  FeatureMaps maps;  // maps.channels are the student's
  int64_t teacher_channels = 1;
  float p = 2;
};

// detkd::attention_mse, the focal part of FGD. With S(f) = positions * softmax over positions of mean_c |f| / T and
// C(f) = channels * softmax over channels of mean_positions |f| / T, of each image:
//
//   loss = 1 / batch * sum [ weight * S(t) * C(t) * (s - t)^2 ]
//        + attention_gain / batch * (sum |S(s) - S(t)| + sum |C(s) - C(t)|)
//
// The gradient leaves out the 1 / batch: gradient_scale carries it. sign(0) = 0.
struct AttentionMseProblem {
  FeatureMaps maps;
  const float* weight = nullptr;  // [batch, positions] without gaps; null: 1 everywhere
  float temperature = 0.5f, attention_gain = 0;
};

// detkd::standardized_mse (PKD). Each channel is standardised over batch and positions, n = batch * positions values:
// z = (x - mean) / d, d = max(sqrt(var), eps) + eps, var = sum (x - mean)^2 / n.
//
//   loss = mean over all of 1/2 (z_s - z_t)^2
//   gradient = 1/d_s * (g - mean(g) - (s - mean_s) * sum(g z_s) / (n sqrt(var_s)) [where var_s > eps^2]),  g = z_s - z_t
//
// The gradient leaves out the mean's 1 / (batch * channels * positions): gradient_scale carries it.
struct StandardizedMseProblem {
  FeatureMaps maps;
  float eps = 1e-6f;
};

}  // namespace detkd
