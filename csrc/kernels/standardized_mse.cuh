// CUDA kernels of detkd::standardized_mse; see ops/problem.h for what it computes: moments, then the gradient.
//
// With w = s - mean(s), v = t - mean(t) and 1/d_s = p, 1/d_t = q, it is g = p w - q v. Where the student nearly equals
// its teacher all digits of that cancel, so that there it is g = p u + (p - q) v with u = (s - t) - mean(s - t), and
// var_s - var_t = (2 sum u v + sum u^2) / n, where nothing does. With either, moments suffice for the loss: one pass.
#pragma once

#include "reduce.cuh"
#include "vectors.cuh"

namespace detkd {

// Asked for at once: sixteen values of each tensor, or four.
template <int kWidth>
constexpr int kVectorsOfThread = kWidth == 8 ? 2 : 4;
template <int kWidth>
constexpr int kVectorsOfBlock = kThreads * kVectorsOfThread<kWidth>;

// Means of n values of u, v and w, and the sums of their products around these.
struct Moments {
  double n, u, v, w, uu, uv, vv, vw, ww;

  // Chan, Golub, LeVeque 1979.
  __device__ Moments operator+(const Moments& b) const {
    const double all = n + b.n, share = b.n / all, by = n * share;
    const double du = b.u - u, dv = b.v - v, dw = b.w - w;
    return {all,
            u + du * share,
            v + dv * share,
            w + dw * share,
            uu + b.uu + du * du * by,
            uv + b.uv + du * dv * by,
            vv + b.vv + dv * dv * by,
            vw + b.vw + dv * dw * by,
            ww + b.ww + dw * dw * by};
  }
};

struct MomentSums {
  float u, v, w, uu, uv, vv, vw, ww;

  __device__ MomentSums operator+(const MomentSums& b) const {
    return {u + b.u, v + b.v, w + b.w, uu + b.uu, uv + b.uv, vv + b.vv, vw + b.vw, ww + b.ww};
  }
};

// The values of a channel that a thread owns, by vectors: each block of a channel takes kVectorsOfBlock of them.
template <typename scalar_t, int kWidth>
struct ChannelPart {
  static constexpr int kVectors = kVectorsOfThread<kWidth>;
  int64_t channel, part, vectors_of_image, vectors;

  __device__ ChannelPart(const FeatureMaps& maps, int64_t parts) {
    const Division where = divide(blockIdx.x, parts);
    channel = where.quotient;
    part = where.remainder;
    vectors_of_image = maps.positions / kWidth;
    vectors = maps.batch * vectors_of_image;
  }

  // How many values the block has.
  __device__ int64_t values() const {
    const int64_t left = vectors - part * kVectorsOfBlock<kWidth>;
    return (left < kVectorsOfBlock<kWidth> ? left : kVectorsOfBlock<kWidth>)*kWidth;
  }

  struct Place {
    bool exists;
    int64_t image, position;
  };
  __device__ Place place(int k) const {
    const int64_t vector = part * kVectorsOfBlock<kWidth> + k * kThreads + threadIdx.x;
    if (vector >= vectors) return {false, 0, 0};
    const Division where = divide(vector, vectors_of_image);
    return {true, where.quotient, where.remainder * kWidth};
  }

  // What does not exist is left alone.
  __device__ void read(const FeatureMaps& maps, float (&s)[kVectors][kWidth], float (&t)[kVectors][kWidth]) const {
#pragma unroll
    for (int k = 0; k < kVectors; ++k) {
      const Place at = place(k);
      if (!at.exists) continue;
      load<kWidth>(student_plane<scalar_t>(maps, at.image, channel) + at.position, s[k]);
      load<kWidth>(teacher_plane<scalar_t>(maps, at.image, channel) + at.position, t[k]);
    }
  }
};

// The centres are the means but for rounding, which is put right here.
__device__ inline Moments about_means(const MomentSums& sums, double n, double centre_u, double centre_v,
                                      double centre_w) {
  const double u = sums.u / n, v = sums.v / n, w = sums.w / n;
  return {n,
          centre_u + u,
          centre_v + v,
          centre_w + w,
          sums.uu - n * u * u,
          sums.uv - n * u * v,
          sums.vv - n * v * v,
          sums.vw - n * v * w,
          sums.ww - n * w * w};
}

// Moments of a part: held in registers, first its means and then its sums around them, in float32; `parts` come
// together in float64.
template <typename scalar_t, int kWidth>
__global__ void __launch_bounds__(kThreads, 2) moments_kernel(const FeatureMaps maps, int64_t parts, Moments* moments) {
  const ChannelPart<scalar_t, kWidth> mine(maps, parts);
  float s[mine.kVectors][kWidth] = {}, t[mine.kVectors][kWidth] = {};
  mine.read(maps, s, t);
  MomentSums sums{};
#pragma unroll
  for (int k = 0; k < mine.kVectors; ++k) {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) sums = sums + MomentSums{s[k][i] - t[k][i], t[k][i], s[k][i], 0, 0, 0, 0, 0};
  }
  sums = over_block(sums, Sum{});
  const float n = static_cast<float>(mine.values()), centre_u = sums.u / n, centre_v = sums.v / n,
              centre_w = sums.w / n;
  sums = {};
#pragma unroll
  for (int k = 0; k < mine.kVectors; ++k) {
    if (!mine.place(k).exists) continue;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const float u = (s[k][i] - t[k][i]) - centre_u, v = t[k][i] - centre_v, w = s[k][i] - centre_w;
      sums = sums + MomentSums{u, v, w, u * u, u * v, v * v, v * w, w * w};
    }
  }
  sums = over_block(sums, Sum{});
  if (threadIdx.x == 0) moments[blockIdx.x] = about_means(sums, n, centre_u, centre_v, centre_w);
}

// gradient = of_first * (first - mean_first) + of_t * (t - mean_t), where first = s - share * t and share is 1 or 0.
struct ChannelSlope {
  float share, mean_first, mean_t, of_first, of_t;
};

// What rounding may have taken below 0; unlike fmax, NaN for NaN.
__device__ inline double not_negative(double x) { return x < 0 ? 0 : x; }

// A thread takes a channel: its loss and slope from the moments of its parts.
static __global__ void standardize_kernel(const StandardizedMseProblem p, int64_t parts, const Moments* moments,
                                          ChannelSlope* slopes, double* losses) {
  const int64_t channel = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (channel >= p.maps.channels) return;
  Moments all = moments[channel * parts];
  for (int64_t part = 1; part < parts; ++part) all = all + moments[channel * parts + part];
  const double eps = p.eps, deviation_s = sqrt(not_negative(all.ww / all.n)),
               deviation_t = sqrt(not_negative(all.vv / all.n));
  const double d_s = (deviation_s > eps ? deviation_s : eps) + eps, d_t = (deviation_t > eps ? deviation_t : eps) + eps;
  double wider = d_s - d_t;
  if (deviation_s > eps && deviation_t > eps) wider = (2 * all.uv + all.uu) / all.n / (deviation_s + deviation_t);
  const bool near = 2 * fabs(wider) < d_t;
  // g = of_s * first + of_t * v
  const double of_s = 1 / d_s, of_t = near ? -wider / (d_s * d_t) : -1 / d_t;
  const double first_first = near ? all.uu : all.ww, first_v = near ? all.uv : all.vw;
  losses[channel] = 0.5 * not_negative(of_s * of_s * first_first + 2 * of_s * of_t * first_v + of_t * of_t * all.vv);
  // sum of g z_s, where z_s = w / d_s; near, w is first + v
  const double g_first = of_s * first_first + of_t * first_v, g_v = of_s * first_v + of_t * all.vv;
  const double along = of_s * (near ? g_first + g_v : g_first);
  const double lean = deviation_s > eps ? along / (all.n * deviation_s) : 0.0, scale = of_s * p.maps.gradient_scale;
  slopes[channel] = {near ? 1.0f : 0.0f, static_cast<float>(near ? all.u : all.w), static_cast<float>(all.v),
                     static_cast<float>((of_s - lean) * scale),
                     static_cast<float>((near ? of_t - lean : of_t) * scale)};
}

template <typename scalar_t, int kWidth>
__global__ void __launch_bounds__(kThreads, kResident)
    standardized_slope_kernel(const FeatureMaps maps, int64_t parts, const ChannelSlope* slopes) {
  const ChannelPart<scalar_t, kWidth> mine(maps, parts);
  const ChannelSlope by = slopes[mine.channel];
  float s[mine.kVectors][kWidth], t[mine.kVectors][kWidth];
  mine.read(maps, s, t);
#pragma unroll
  for (int k = 0; k < mine.kVectors; ++k) {
    const auto at = mine.place(k);
    if (!at.exists) continue;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const float first = fmaf(-by.share, t[k][i], s[k][i]) - by.mean_first;
      s[k][i] = by.of_first * first + by.of_t * (t[k][i] - by.mean_t);
    }
    store<kWidth>(gradient_plane<scalar_t>(maps, at.image, mine.channel) + at.position, s[k]);
  }
}

}  // namespace detkd
