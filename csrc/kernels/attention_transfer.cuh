// CUDA kernels of detkd::attention_transfer; see ops/problem.h for what it computes: maps, their comparison, the gradient.
#pragma once

#include "device.cuh"

namespace detkd {

__device__ inline float power_of(float x, float p) {
  return p == 2.0f ? x * x : p == 1.0f ? fabsf(x) : powf(fabsf(x), p);  // powf(x, 0) is 1
}

// A thread sums over the channels of one position; `maps` is [student, teacher][batch][position].
template <typename scalar_t>
__global__ void attention_map_kernel(const AttentionTransferProblem p, double* maps) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, count = p.maps.batch * p.maps.positions;
  if (index >= count) return;
  const int64_t image = index / p.maps.positions, position = index % p.maps.positions;
  double student = 0, teacher = 0;
  for (int64_t c = 0; c < p.maps.channels; ++c) {
    student += power_of(to_float(student_plane<scalar_t>(p.maps, image, c)[position]), p.p);
  }
  for (int64_t c = 0; c < p.teacher_channels; ++c) {
    teacher += power_of(to_float(teacher_plane<scalar_t>(p.maps, image, c)[position]), p.p);
  }
  maps[index] = student;
  maps[count + index] = teacher;
}

// A block compares the maps of one image; slopes take the place of the student's map.
static __global__ void attention_compare_kernel(const AttentionTransferProblem p, double* maps, double* partials) {
  const int64_t n = p.maps.positions;
  double* student = maps + blockIdx.x * n;
  const double* teacher = maps + (p.maps.batch + blockIdx.x) * n;
  double squares_s = 0, squares_t = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) {
    squares_s += student[i] * student[i];
    squares_t += teacher[i] * teacher[i];
  }
  const double length_s = sqrt(block_total(squares_s)), length_t = sqrt(block_total(squares_t));
  const double per_s = 1 / fmax(length_s, 1e-12), per_t = 1 / fmax(length_t, 1e-12);
  double total = 0, along = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) {
    const double a = student[i] * per_s, gap = a - teacher[i] * per_t;
    total += gap * gap;
    along += gap * a;
  }
  total = block_total(total);
  along = length_s > 1e-12 ? block_total(along) : 0.0;  // a shorter map is not normalised but scaled
  for (int64_t i = threadIdx.x; i < n; i += kThreads) {
    const double a = student[i] * per_s, gap = a - teacher[i] * per_t;
    student[i] = 2 * p.p * (gap - a * along) * per_s * p.maps.gradient_scale;
  }
  if (threadIdx.x == 0) partials[blockIdx.x] = total;
}

template <typename scalar_t>
__global__ void attention_slope_kernel(const AttentionTransferProblem p, const double* slopes) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= p.maps.batch * p.maps.positions) return;
  const int64_t image = index / p.maps.positions, position = index % p.maps.positions;
  const float slope = static_cast<float>(slopes[index]);
  for (int64_t c = 0; c < p.maps.channels; ++c) {
    const float x = to_float(student_plane<scalar_t>(p.maps, image, c)[position]);
    const float magnitude = x == 0.0f ? 0.0f : power_of(x, p.p - 1.0f);
    put(gradient_plane<scalar_t>(p.maps, image, c) + position, copysignf(magnitude, x) * slope);
  }
}

}  // namespace detkd
