// CUDA kernel of detkd::kl_div; see ops/problem.h for what it computes and cpu/kernels/kl_div_terms.h for how.
//
// Where the classes of a position are neighbours in memory a warp takes a position; else a thread takes one, and
// neighbouring threads read neighbouring positions.
#pragma once

#include "device.cuh"

namespace detkd {

struct Terms {
  float e_t, d, y;
};

// Exponentials below their maxima: the teacher's, the student's less the teacher's, and log2 of their ratio.
__device__ inline Terms kl_terms(float s, float t, float top_s, float top_t, float rate) {
  Terms out;
  out.y = ((s - t) - (top_s - top_t)) * rate;
  const float high = exp2f(fmaxf(s - top_s, t - top_t) * rate);
  // 1 - 2^-|y| without cancellation; y is NaN where both logits are -inf, and high is 0.
  const float gap = high > 0.0f ? -high * expm1f(-fabsf(out.y) * 0.693147181f) : 0.0f;
  out.d = copysignf(gap, out.y);
  out.e_t = out.y > 0.0f ? high - gap : high;
  return out;
}

template <typename Group, typename scalar_t>
__device__ void kl_div_position(const KlDivProblem& p, const scalar_t* student, const scalar_t* teacher,
                                scalar_t* gradient, float weight, float* loss) {
  const auto each = [&](auto body) {
    for (int64_t c = Group::lane(); c < p.classes; c += Group::kLanes) {
      body(c, to_float(student[c * p.student_stride]), to_float(teacher[c * p.teacher_stride]));
    }
  };
  float top_s = lowest(), top_t = lowest(), nan_s = 0.0f, nan_t = 0.0f;
  each([&](int64_t, float s, float t) {
    top_s = fmaxf(top_s, s);
    top_t = fmaxf(top_t, t);
    nan_s = isnan(s) ? 1.0f : nan_s;
    nan_t = isnan(t) ? 1.0f : nan_t;
  });
  top_s = Group::max(top_s);
  top_t = Group::max(top_t);
  nan_s = Group::max(nan_s);
  nan_t = Group::max(nan_t);
  const bool counts =
      weight != 0.0f && (top_s != lowest() || nan_s != 0.0f) && (top_t != lowest() || nan_t != 0.0f);
  const bool nan = nan_s != 0.0f || nan_t != 0.0f || isinf(top_s) || isinf(top_t);
  const float rate = 1.44269504f / p.temperature;
  float e_t = 0.0f, d = 0.0f, y = 0.0f;
  if (counts && !nan) {
    each([&](int64_t, float s, float t) {
      const Terms term = kl_terms(s, t, top_s, top_t, rate);
      e_t += term.e_t;
      d += term.d;
      if (term.e_t > 0.0f) y = fmaf(term.e_t, term.y, y);  // p_t = 0 counts 0, also where the student is -inf
    });
  }
  e_t = Group::sum(e_t);
  d = Group::sum(d);
  y = Group::sum(y);
  const float rho = d / e_t;
  if (Group::lane() == 0) {
    const float value = fmaxf(log1pf(rho) - 0.693147181f * y / e_t, 0.0f) * p.temperature * p.temperature;
    *loss = !counts ? 0.0f : nan ? not_a_number() : weight * value;
  }
  if (gradient == nullptr) return;
  const float factor = weight * p.temperature * p.gradient_scale / (e_t + d);
  each([&](int64_t c, float s, float t) {
    const Terms term = kl_terms(s, t, top_s, top_t, rate);
    const float slope = (term.d - rho * term.e_t) * factor;
    put(gradient + c * p.gradient_stride, !counts ? 0.0f : nan ? not_a_number() : slope);
  });
}

// One group for each position. Values go to `values`, one behind the other, or to p.loss where it is null.
template <typename Group, typename scalar_t>
__global__ void kl_div_kernel(const KlDivProblem p, float* values) {
  const int64_t position = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / Group::kLanes;
  if (position >= p.outer.count * p.inner) return;  // a whole group at once: no lane waits for one that has left
  const Offsets at = offsets(p.outer, position / p.inner);
  const int64_t inner = position % p.inner;
  const float weight = p.weight == nullptr ? 1.0f : p.weight[at.weight + inner * p.weight_inner];
  scalar_t* gradient = static_cast<scalar_t*>(p.gradient);
  kl_div_position<Group, scalar_t>(p, static_cast<const scalar_t*>(p.student) + at.student + inner,
                                   static_cast<const scalar_t*>(p.teacher) + at.teacher + inner,
                                   gradient == nullptr ? nullptr : gradient + at.gradient + inner, weight,
                                   values == nullptr ? p.loss + at.loss + inner * p.loss_inner : values + position);
}

}  // namespace detkd
