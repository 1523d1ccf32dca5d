// CUDA kernel of detkd::binary_kl; see ops/problem.h for what it computes and cpu/kernels/binary_kl.h for how.
#pragma once

#include "reduce.cuh"
#include "vectors.cuh"

namespace detkd {

struct Bernoulli {
  float divergence, gap, spread;  // D, |b - a|, b (1 - b)
};

// 0 * infinity counts 0: a probability of 0 times its logarithm.
__device__ inline float product(float probability, float by) { return probability == 0.0f ? 0.0f : probability * by; }

// `rate` is 1 / (T log 2).
__device__ inline Bernoulli bernoulli(float s, float t, float rate, bool cross_entropy) {
  const float ax = fabsf(s) * rate, az = fabsf(t) * rate;
  const float farther = (fabsf(s) - fabsf(t)) * rate;  // exact where they are close, before any rounding
  const bool opposite = s * t < 0.0f, x_nearer = fabsf(s) < fabsf(t);
  const Power large = power_below_one(fminf(ax, az));
  const Power ratio = power_below_one(fabsf(farther));  // of NaN where both are infinite; large is 0 there
  const float small = large.power * ratio.power, difference = large.power * ratio.complement;
  const float e_x = x_nearer ? large.power : small, e_z = x_nearer ? small : large.power;
  const float both = 1.0f / ((1.0f + e_x) * (1.0f + e_z)), per_z = both * (1.0f + e_x), per_x = both * (1.0f + e_z);
  Bernoulli out;
  if (cross_entropy) {
    out.divergence = log1pf(e_x) + product(opposite ? per_z : e_z * per_z, ax * kLn2);
  } else {
    const float log = log1pf((x_nearer ? difference : -difference) * per_z);
    const float across = opposite ? product((1.0f - e_z) * per_z, ax * kLn2) : 0.0f;
    out.divergence = fmaxf(log + product(e_z * per_z, farther * kLn2) + across, 0.0f);
  }
  const float sum = large.power * large.power * ratio.complement + large.complement * (1.0f + large.power);
  out.gap = (opposite ? sum : difference) * both;
  out.spread = e_x * per_x * per_x;
  return out;
}

struct BinaryKlTerm {
  float value, slope;
};

__device__ inline BinaryKlTerm binary_kl_term(float s, float t, float weight, const BinaryKlProblem& p) {
  if (weight == 0.0f) return {0.0f, 0.0f};
  if (isnan(s) || isnan(t)) return {not_a_number(), not_a_number()};
  const Bernoulli d = bernoulli(s, t, kLog2E / p.temperature, p.cross_entropy);
  const float factor = p.beta == 0.0f ? 1.0f : p.beta == 1.0f ? d.gap : exp2f(p.beta * log2f(d.gap));
  float slope = d.gap * factor;
  if (p.beta != 0.0f && d.gap > 0.0f) slope += d.divergence * p.beta * factor / d.gap * d.spread;
  const float scale = weight * p.temperature;
  return {scale * p.temperature * d.divergence * factor, copysignf(slope, s - t) * scale * p.gradient_scale};
}

// Weights of the logits from `inner` on; 0 for what the run's end does not leave.
template <int kWidth>
__device__ void load_weights(const BinaryKlProblem& p, int64_t begin, int64_t inner, int64_t left,
                             float (&to)[kWidth]) {
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    to[i] = i >= left ? 0.0f : p.weight == nullptr ? 1.0f : p.weight[begin + (inner + i) * p.weight_inner];
  }
}

template <int kWidth>
__device__ void store_values(const float (&from)[kWidth], int64_t begin, int64_t inner, int64_t left,
                             const BinaryKlProblem& p) {
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    if (i < left) p.loss[begin + (inner + i) * p.loss_inner] = from[i];
  }
}

// Values of logits are summed by block into `partials`, or written to p.loss.
template <typename scalar_t, int kWidth>
__global__ void __launch_bounds__(kThreads, kResident) binary_kl_kernel(const BinaryKlProblem p, double* partials) {
  const int64_t vectors_of_run = divide_up(p.inner, kWidth), vectors = p.outer.count * vectors_of_run;
  CompensatedSum sum;
  for (int64_t v = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; v < vectors;
       v += static_cast<int64_t>(gridDim.x) * kThreads) {
    const Division where = divide(v, vectors_of_run);
    const int64_t inner = where.remainder * kWidth, left = p.inner - inner;
    const auto begin = [&](const int64_t (&strides)[kMaxDims]) { return offset(p.outer, strides, where.quotient); };
    float s[kWidth], t[kWidth], slopes[kWidth], weights[kWidth], values[kWidth], total = 0.0f;
    load_run<kWidth>(static_cast<const scalar_t*>(p.student) + begin(p.outer.student) + inner, left, s);
    load_run<kWidth>(static_cast<const scalar_t*>(p.teacher) + begin(p.outer.teacher) + inner, left, t);
    load_weights(p, begin(p.outer.weight), inner, left, weights);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const BinaryKlTerm term = binary_kl_term(s[i], t[i], weights[i], p);
      slopes[i] = term.slope;
      values[i] = term.value;
      total += term.value;
    }
    sum.add(total);
    if (!p.reduced) store_values(values, begin(p.outer.loss), inner, left, p);
    if (p.gradient == nullptr) continue;
    store_run<kWidth>(static_cast<scalar_t*>(p.gradient) + begin(p.outer.gradient) + inner, left, slopes);
  }
  if (!p.reduced) return;
  const double total = block_sum(sum.total());
  if (threadIdx.x == 0) partials[blockIdx.x] = total;
}

}  // namespace detkd
