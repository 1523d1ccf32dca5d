// CUDA kernels of detkd::attention_transfer; see ops/problem.h for what it computes: maps, their comparison, the
// gradient.
#pragma once

#include "feature_tiles.cuh"

namespace detkd {

// |x|^p
struct Square {
  __device__ float operator()(float x) const { return x * x; }
};
struct Magnitude {
  __device__ float operator()(float x) const { return fabsf(x); }
};
struct AnyPower {
  float p;
  __device__ float operator()(float x) const { return exp2f(p * log2f(fabsf(x))); }
};

// Adds the powers of this thread's share of channels; plane(c) is where channel c begins.
template <int kWidth, typename Plane, typename Power>
__device__ void add_powers(Plane plane, int64_t channels, int64_t position, Power power,
                           CompensatedSum (&sums)[kWidth]) {
#pragma unroll 4
  for (int64_t c = MapTile<kWidth>::slice(); c < channels; c += MapTile<kWidth>::slices()) {
    float x[kWidth];
    load<kWidth>(plane(c) + position, x);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) sums[i].add(power(x[i]));
  }
}

// A tile of both maps; `maps` is [student, teacher][batch][position].
template <typename scalar_t, int kWidth>
__global__ void __launch_bounds__(kThreads, kResident)
    attention_map_kernel(const AttentionTransferProblem p, double* maps) {
  const MapPlace place = map_place<kWidth>(p.maps);
  CompensatedSum student[kWidth], teacher[kWidth];
  const auto add = [&](auto power) {
    const auto of_student = [&](int64_t c) { return student_plane<scalar_t>(p.maps, place.image, c); };
    const auto of_teacher = [&](int64_t c) { return teacher_plane<scalar_t>(p.maps, place.image, c); };
    add_powers<kWidth>(of_student, p.maps.channels, place.position, power, student);
    add_powers<kWidth>(of_teacher, p.teacher_channels, place.position, power, teacher);
  };
  if (place.exists) {
    if (p.p == 2.0f) {
      add(Square{});
    } else if (p.p == 1.0f) {
      add(Magnitude{});
    } else {
      add(AnyPower{p.p});
    }
  }
  write_maps<kWidth>(student, teacher, place, p.maps, maps);
}

// A block compares the maps of one image, a hundredth of what the other kernels move: three launches of more blocks,
// one for each reduction, would take longer than these do. `slopes` is [batch][position], the gradient by the student's
// map.
static __global__ void __launch_bounds__(kMostThreads)
    attention_compare_kernel(const AttentionTransferProblem p, const double* maps, float* slopes, double* partials) {
  const int64_t n = p.maps.positions;
  const double* student = maps + blockIdx.x * n;
  const double* teacher = student + p.maps.batch * n;
  PairOfSums squares{0, 0};
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    squares = squares + PairOfSums{student[i] * student[i], teacher[i] * teacher[i]};
  }
  squares = over_block(squares, Sum{});
  const double length = sqrt(squares.student);
  const double per_s = 1 / fmax(length, 1e-12), per_t = 1 / fmax(sqrt(squares.teacher), 1e-12);
  double total = 0, along = 0;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    const double a = student[i] * per_s, gap = a - teacher[i] * per_t;
    total += gap * gap;
    along += gap * a;
  }
  total = block_sum(total);
  if (threadIdx.x == 0) partials[blockIdx.x] = total;
  along = length > 1e-12 ? block_sum(along) : 0.0;  // a shorter map is not normalised but scaled
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    const double a = student[i] * per_s, gap = a - teacher[i] * per_t;
    slopes[blockIdx.x * n + i] = static_cast<float>(2 * p.p * (gap - a * along) * per_s * p.maps.gradient_scale);
  }
}

template <typename scalar_t, int kWidth>
__global__ void __launch_bounds__(kThreads, kResident)
    attention_slope_kernel(const AttentionTransferProblem p, const float* slopes) {
  using Block = MapTile<kWidth>;
  const MapPlace place = map_place<kWidth>(p.maps);
  if (!place.exists) return;
  float slope[kWidth];
#pragma unroll
  for (int i = 0; i < kWidth; ++i) slope[i] = slopes[place.image * p.maps.positions + place.position + i];
  // |x|^(p - 1) sign x
  const auto write = [&](auto derivative) {
#pragma unroll 4
    for (int64_t c = Block::slice(); c < p.maps.channels; c += Block::slices()) {
      float x[kWidth];
      load<kWidth>(student_plane<scalar_t>(p.maps, place.image, c) + place.position, x);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) x[i] = derivative(x[i]) * slope[i];
      store<kWidth>(gradient_plane<scalar_t>(p.maps, place.image, c) + place.position, x);
    }
  };
  if (p.p == 2.0f) {
    write([](float x) { return x; });
  } else if (p.p == 1.0f) {
    write([](float x) { return static_cast<float>((x > 0.0f) - (x < 0.0f)); });
  } else {
    write([power = AnyPower{p.p - 1.0f}](float x) { return copysignf(power(x), x); });
  }
}

}  // namespace detkd
