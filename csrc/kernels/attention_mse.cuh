// CUDA kernels of detkd::attention_mse; see ops/problem.h for what it computes: sums of |f|, attention, then loss and gradient.
#pragma once

#include "device.cuh"

namespace detkd {

// Where the parts of the workspace lie, in doubles: [student, teacher] sums, then attention, and the student's slopes.
struct FocalRoom {
  double *space_s, *space_t, *space_slope;  // [batch][position]
  double *depth_s, *depth_t, *depth_slope;  // [batch][channel]
  double* partials;                         // one for each image, and one for each block of the last kernel

  __device__ __host__ static FocalRoom in(double* begin, const FeatureMaps& maps) {
    const int64_t space = maps.batch * maps.positions, depth = maps.batch * maps.channels;
    double* channels = begin + 3 * space;
    return {begin, begin + space, begin + 2 * space, channels, channels + depth, channels + 2 * depth, channels + 3 * depth};
  }
};

template <typename scalar_t>
__global__ void focal_space_kernel(const AttentionMseProblem p, FocalRoom room) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= p.maps.batch * p.maps.positions) return;
  const int64_t image = index / p.maps.positions, position = index % p.maps.positions;
  double student = 0, teacher = 0;
  for (int64_t c = 0; c < p.maps.channels; ++c) {
    student += fabsf(to_float(student_plane<scalar_t>(p.maps, image, c)[position]));
    teacher += fabsf(to_float(teacher_plane<scalar_t>(p.maps, image, c)[position]));
  }
  room.space_s[index] = student;
  room.space_t[index] = teacher;
}

// A block takes a channel of an image.
template <typename scalar_t>
__global__ void focal_depth_kernel(const AttentionMseProblem p, FocalRoom room) {
  const int64_t image = blockIdx.x / p.maps.channels, channel = blockIdx.x % p.maps.channels;
  double student = 0, teacher = 0;
  for (int64_t i = threadIdx.x; i < p.maps.positions; i += kThreads) {
    student += fabsf(to_float(student_plane<scalar_t>(p.maps, image, channel)[i]));
    teacher += fabsf(to_float(teacher_plane<scalar_t>(p.maps, image, channel)[i]));
  }
  student = block_total(student);
  teacher = block_total(teacher);
  if (threadIdx.x == 0) {
    room.depth_s[blockIdx.x] = student;
    room.depth_t[blockIdx.x] = teacher;
  }
}

// n * softmax(values / temperature), in place, by one block.
__device__ inline void scaled_softmax(double* values, int64_t n, double temperature) {
  __shared__ double tops[kThreads];
  double top = values[0];
  for (int64_t i = threadIdx.x; i < n; i += kThreads) top = fmax(top, values[i]);
  tops[threadIdx.x] = top;
  __syncthreads();
  for (int i = 0; i < kThreads; ++i) top = fmax(top, tops[i]);
  __syncthreads();  // nobody writes before all have read values[0] and the tops
  double sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) {
    values[i] = exp((values[i] - top) / temperature);
    sum += values[i];
  }
  sum = block_total(sum);
  for (int64_t i = threadIdx.x; i < n; i += kThreads) values[i] *= n / sum;
}

// Attention of both along one axis from sums over `each` values; returns the L1 distance, and leaves the student's slopes.
__device__ inline double compare_axis(double* student, double* teacher, double* slope, int64_t n, double each,
                                      const AttentionMseProblem& p) {
  scaled_softmax(student, n, p.temperature * each);
  scaled_softmax(teacher, n, p.temperature * each);
  double distance = 0, mean = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) {
    const double gap = student[i] - teacher[i];
    distance += fabs(gap);
    mean += ((gap > 0) - (gap < 0)) * student[i] / n;
  }
  distance = block_total(distance);
  mean = block_total(mean);
  for (int64_t i = threadIdx.x; i < n; i += kThreads) {
    const double gap = student[i] - teacher[i], sign = (gap > 0) - (gap < 0);
    slope[i] = p.attention_gain * student[i] * (sign - mean) / (p.temperature * each);
  }
  return distance;
}

// A block for each image.
static __global__ void focal_attention_kernel(const AttentionMseProblem p, FocalRoom room) {
  const int64_t positions = p.maps.positions, channels = p.maps.channels;
  const int64_t space = blockIdx.x * positions, depth = blockIdx.x * channels;
  const double across = compare_axis(room.space_s + space, room.space_t + space, room.space_slope + space, positions,
                                     static_cast<double>(channels), p);
  const double along = compare_axis(room.depth_s + depth, room.depth_t + depth, room.depth_slope + depth, channels,
                                    static_cast<double>(positions), p);
  if (threadIdx.x == 0) room.partials[blockIdx.x] = p.attention_gain * (across + along);
}

// A thread for each position; partial sums stand behind those of the images.
template <typename scalar_t>
__global__ void focal_error_kernel(const AttentionMseProblem p, FocalRoom room) {
  const FeatureMaps& maps = p.maps;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  double sum = 0;
  if (index < maps.batch * maps.positions) {
    const int64_t image = index / maps.positions, position = index % maps.positions;
    const float weight = static_cast<float>((p.weight == nullptr ? 1.0 : p.weight[index]) * room.space_t[index]);
    for (int64_t c = 0; c < maps.channels; ++c) {
      const float s = to_float(student_plane<scalar_t>(maps, image, c)[position]);
      const float d = s - to_float(teacher_plane<scalar_t>(maps, image, c)[position]);
      const int64_t channel = image * maps.channels + c;
      // A weight of 0 counts 0, whatever it covers.
      const float error = weight == 0.0f ? 0.0f : weight * static_cast<float>(room.depth_t[channel]) * d;
      if (weight != 0.0f) sum += error * d;
      if (maps.gradient == nullptr) continue;
      const float slope = static_cast<float>(room.depth_slope[channel] + room.space_slope[index]);
      const float sign = static_cast<float>((s > 0.0f) - (s < 0.0f));
      put(gradient_plane<scalar_t>(maps, image, c) + position, (2.0f * error + sign * slope) * maps.gradient_scale);
    }
  }
  sum = block_total(sum);
  if (threadIdx.x == 0) room.partials[maps.batch + blockIdx.x] = sum;
}

}  // namespace detkd
