// CUDA kernel of detkd::binary_kl; see ops/problem.h for what it computes and cpu/kernels/binary_kl.h for how.
#pragma once

#include "device.cuh"

namespace detkd {

struct Bernoulli {
  float divergence, gap, spread;  // D, |b - a|, b (1 - b)
};

// 0 * infinity counts 0: a probability of 0 times its logarithm.
__device__ inline float product(float probability, float by) { return probability == 0.0f ? 0.0f : probability * by; }

__device__ inline Bernoulli bernoulli(float s, float t, float per_temperature, bool cross_entropy) {
  const float ax = fabsf(s) * per_temperature, az = fabsf(t) * per_temperature;
  const float farther = (fabsf(s) - fabsf(t)) * per_temperature;  // exact where they are close, before any rounding
  const bool opposite = s * t < 0.0f, x_nearer = fabsf(s) < fabsf(t);
  const float nearest = fminf(ax, az), large = expf(-nearest), large_gap = -expm1f(-nearest);
  const float apart = fabsf(farther);  // NaN where both are infinite; large is 0 there
  const float ratio = isnan(apart) ? 0.0f : expf(-apart), ratio_gap = isnan(apart) ? 1.0f : -expm1f(-apart);
  const float small = large * ratio, difference = large * ratio_gap;
  const float e_x = x_nearer ? large : small, e_z = x_nearer ? small : large;
  const float both = 1.0f / ((1.0f + e_x) * (1.0f + e_z)), per_z = both * (1.0f + e_x), per_x = both * (1.0f + e_z);
  Bernoulli out;
  if (cross_entropy) {
    out.divergence = log1pf(e_x) + product(opposite ? per_z : e_z * per_z, ax);
  } else {
    const float log = log1pf((x_nearer ? difference : -difference) * per_z);
    const float across = opposite ? product((1.0f - e_z) * per_z, ax) : 0.0f;
    out.divergence = fmaxf(log + product(e_z * per_z, farther) + across, 0.0f);
  }
  out.gap = (opposite ? large * large * ratio_gap + large_gap * (1.0f + large) : difference) * both;
  out.spread = e_x * per_x * per_x;
  return out;
}

// Values of logits are summed by block into `partials`, or written to p.loss.
template <typename scalar_t>
__global__ void binary_kl_kernel(const BinaryKlProblem p, double* partials) {
  const float per_temperature = 1.0f / p.temperature;
  double sum = 0;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads, count = p.outer.count * p.inner;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += step) {
    const Offsets at = offsets(p.outer, i / p.inner);
    const int64_t inner = i % p.inner;
    const float s = to_float(static_cast<const scalar_t*>(p.student)[at.student + inner]);
    const float t = to_float(static_cast<const scalar_t*>(p.teacher)[at.teacher + inner]);
    const float weight = p.weight == nullptr ? 1.0f : p.weight[at.weight + inner * p.weight_inner];
    const Bernoulli d = bernoulli(s, t, per_temperature, p.cross_entropy);
    const float factor = p.beta == 0.0f ? 1.0f : p.beta == 1.0f ? d.gap : powf(d.gap, p.beta);
    float value = weight * p.temperature * p.temperature * d.divergence * factor, slope = d.gap * factor;
    if (p.beta != 0.0f && d.gap > 0.0f) slope += d.divergence * p.beta * factor / d.gap * d.spread;
    slope = copysignf(slope, s - t) * weight * p.temperature * p.gradient_scale;
    const bool nan = isnan(s) || isnan(t);
    value = weight == 0.0f ? 0.0f : nan ? not_a_number() : value;
    slope = weight == 0.0f ? 0.0f : nan ? not_a_number() : slope;
    if (p.gradient != nullptr) put(static_cast<scalar_t*>(p.gradient) + at.gradient + inner, slope);
    if (!p.reduced) p.loss[at.loss + inner * p.loss_inner] = value;
    sum += value;
  }
  sum = block_total(sum);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

}  // namespace detkd
