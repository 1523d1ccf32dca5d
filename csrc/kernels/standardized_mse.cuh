// CUDA kernel of detkd::standardized_mse; see ops/problem.h for what it computes. A block takes a channel, and rereads it
// from the caches.
#pragma once

#include "device.cuh"

namespace detkd {

// Calls body(student, teacher, where the gradient goes) for the values of a channel that this thread owns.
template <typename scalar_t, typename Body>
__device__ void each_value(const FeatureMaps& maps, int64_t channel, Body body) {
  for (int64_t image = 0; image < maps.batch; ++image) {
    const scalar_t* student = student_plane<scalar_t>(maps, image, channel);
    const scalar_t* teacher = teacher_plane<scalar_t>(maps, image, channel);
    const int64_t at = (image * maps.channels + channel) * maps.positions;
    for (int64_t i = threadIdx.x; i < maps.positions; i += kThreads) {
      body(to_float(student[i]), to_float(teacher[i]), at + i);
    }
  }
}

template <typename scalar_t>
__global__ void standardized_mse_kernel(const StandardizedMseProblem p, double* partials) {
  const FeatureMaps& maps = p.maps;
  const int64_t channel = blockIdx.x;
  const double n = static_cast<double>(maps.batch * maps.positions), eps = p.eps;
  double sum_s = 0, sum_t = 0;
  each_value<scalar_t>(maps, channel, [&](float s, float t, int64_t) {
    sum_s += s;
    sum_t += t;
  });
  const double mean_s = block_total(sum_s) / n, mean_t = block_total(sum_t) / n;
  double squares_s = 0, squares_t = 0;
  each_value<scalar_t>(maps, channel, [&](float s, float t, int64_t) {
    squares_s += (s - mean_s) * (s - mean_s);
    squares_t += (t - mean_t) * (t - mean_t);
  });
  const double deviation_s = sqrt(block_total(squares_s) / n), deviation_t = sqrt(block_total(squares_t) / n);
  const double per_s = 1 / ((deviation_s > eps ? deviation_s : eps) + eps);
  const double per_t = 1 / ((deviation_t > eps ? deviation_t : eps) + eps);
  double sum = 0, squares = 0, dot = 0;
  each_value<scalar_t>(maps, channel, [&](float s, float t, int64_t) {
    const double z = (s - mean_s) * per_s, g = z - (t - mean_t) * per_t;
    sum += g;
    squares += g * g;
    dot += g * z;
  });
  const double mean = block_total(sum) / n, along = block_total(dot);
  squares = block_total(squares);
  if (threadIdx.x == 0) partials[channel] = 0.5 * squares;
  if (maps.gradient == nullptr) return;
  const double lean = deviation_s > eps ? along / (n * deviation_s) : 0.0;
  each_value<scalar_t>(maps, channel, [&](float s, float t, int64_t at) {
    const double centred = s - mean_s, g = centred * per_s - (t - mean_t) * per_t;
    const double slope = (g - mean - centred * lean) * per_s * maps.gradient_scale;
    put(static_cast<scalar_t*>(maps.gradient) + at, static_cast<float>(slope));
  });
}

}  // namespace detkd
