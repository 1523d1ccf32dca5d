// CUDA kernels of detkd::attention_mse; see ops/problem.h for what it computes: sums of |f|, attention, then loss and
// gradient.
#pragma once

#include "feature_tiles.cuh"
#include "kl_div_terms.cuh"

namespace detkd {

// Where the intermediate results lie. Sums are [student, teacher][batch][n]; attention is the teacher's and comes with the
// slopes of the student's, [batch][n]. Sums are needed until attention is known and may lie where the gradient will.
struct FocalRoom {
  double *space, *depth;  // sums over channels and over positions
  float* depth_of_tile;   // [tile of all images][student, teacher][channel]
  double* partials;       // two of each image, for its axes, and one of each tile
  float *space_weight, *space_slope, *depth_weight, *depth_slope;

  static FocalRoom in(double* begin, const FeatureMaps& maps, int64_t tiles) {
    const int64_t space = maps.batch * maps.positions, depth = maps.batch * maps.channels;
    float* floats = reinterpret_cast<float*>(begin + 2 * maps.batch + tiles);
    float* depth_floats = floats + 2 * space;
    double* sums = room_in_gradient(maps, of_sums(maps, tiles));
    if (sums == nullptr) sums = begin + of_attention(maps, tiles);
    return {sums, sums + 2 * space, reinterpret_cast<float*>(sums + 2 * (space + depth)),
            begin, floats, floats + space, depth_floats, depth_floats + depth};
  }
  static int64_t doubles(const FeatureMaps& maps, int64_t tiles) {
    const int64_t sums = of_sums(maps, tiles);
    return of_attention(maps, tiles) + (room_in_gradient(maps, sums) == nullptr ? sums : 0);
  }

 private:
  static int64_t of_attention(const FeatureMaps& maps, int64_t tiles) {
    return maps.batch * (maps.positions + maps.channels) + 2 * maps.batch + tiles;
  }
  static int64_t of_sums(const FeatureMaps& maps, int64_t tiles) {
    return 2 * maps.batch * (maps.positions + maps.channels) + tiles * maps.channels;
  }
};

// Adds |x| to the sums of a thread's positions; returns their sum over the tile.
template <int kWidth, typename scalar_t>
__device__ float add_magnitudes(const scalar_t* channel, bool exists, CompensatedSum (&sums)[kWidth]) {
  float x[kWidth] = {}, along = 0.0f;
  if (exists) load<kWidth>(channel, x);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    sums[i].add(fabsf(x[i]));
    along += fabsf(x[i]);
  }
  return over_lanes(along, 1, MapTile<kWidth>::kAcross, Sum{});
}

// A tile: sums over channels are finished, sums over positions are those of the tile.
template <typename scalar_t, int kWidth>
__global__ void __launch_bounds__(kThreads, kResident) focal_sums_kernel(const AttentionMseProblem p, FocalRoom room) {
  using Block = MapTile<kWidth>;
  const FeatureMaps& maps = p.maps;
  const MapPlace place = map_place<kWidth>(maps);
  float* depth = room.depth_of_tile + 2 * maps.channels * blockIdx.x;
  CompensatedSum student[kWidth], teacher[kWidth];
  // All threads of a warp stay together for its lanes' sums: those without a channel add nothing to the last one.
#pragma unroll 2
  for (int64_t first = 0; first < maps.channels; first += Block::slices()) {
    const int64_t mine = first + Block::slice(), c = mine < maps.channels ? mine : maps.channels - 1;
    const bool exists = place.exists && mine < maps.channels;
    const float of_s =
        add_magnitudes<kWidth>(student_plane<scalar_t>(maps, place.image, c) + place.position, exists, student);
    const float of_t =
        add_magnitudes<kWidth>(teacher_plane<scalar_t>(maps, place.image, c) + place.position, exists, teacher);
    if (Block::column() == 0 && mine < maps.channels) {
      depth[mine] = of_s;
      depth[maps.channels + mine] = of_t;
    }
  }
  write_maps<kWidth>(student, teacher, place, maps, room.space);
}

// One axis of an image: sums over `each` values at n places, and room for what comes of them.
struct FocalAxis {
  const double *student, *teacher;
  int64_t n;
  double each;
  float *weight, *slope;

  // The mean of |f| at a place, and the maxima of student and teacher, over the temperature, in units of log 2.
  __device__ KlTerms terms(int64_t i, PairOfSums top, double rate) const {
    const double s = student[i] - top.student, t = teacher[i] - top.teacher;
    return kl_terms(static_cast<float>(s * rate), static_cast<float>(t * rate), static_cast<float>((s - t) * rate));
  }
};

struct HigherSums {
  __device__ PairOfSums operator()(const PairOfSums& a, const PairOfSums& b) const {
    return {a.student < b.student ? b.student : a.student, a.teacher < b.teacher ? b.teacher : a.teacher};
  }
};

// S = n softmax of student and teacher along an axis, and their L1 distance, which is returned. The difference of S
// comes from that of the exponentials without cancellation, as kl_div's gradient does.
__device__ inline double compare_axis(const FocalAxis& axis, const AttentionMseProblem& p) {
  const double rate = kLog2E / (p.temperature * axis.each);
  PairOfSums top{axis.student[0], axis.teacher[0]};
  for (int64_t i = threadIdx.x; i < axis.n; i += blockDim.x)
    top = HigherSums{}(top, {axis.student[i], axis.teacher[i]});
  top = over_block(top, HigherSums{});
  KlSums sums{0.0f, 0.0f, 0.0f, 0.0f};
  for (int64_t i = threadIdx.x; i < axis.n; i += blockDim.x) sums.add(axis.terms(i, top, rate));
  sums = over_block(sums, Sum{});
  const float n = static_cast<float>(axis.n), rho = sums.d / sums.e_t, per_s = n / sums.e_s, per_t = n / sums.e_t;
  PairOfSums found{0, 0};  // the distance, and the mean of S sign(difference)
  for (int64_t i = threadIdx.x; i < axis.n; i += blockDim.x) {
    const KlTerms term = axis.terms(i, top, rate);
    const float gap = (term.d - rho * term.e_t) * per_s;
    found = found + PairOfSums{fabsf(gap), copysignf(gap == 0.0f ? 0.0f : term.e_s * per_s, gap) / n};
  }
  found = over_block(found, Sum{});
  const float gain = p.attention_gain / (p.temperature * static_cast<float>(axis.each));
  for (int64_t i = threadIdx.x; i < axis.n; i += blockDim.x) {
    const KlTerms term = axis.terms(i, top, rate);
    const float gap = term.d - rho * term.e_t, sign = static_cast<float>((gap > 0.0f) - (gap < 0.0f));
    axis.weight[i] = term.e_t * per_t;
    axis.slope[i] = gain * term.e_s * per_s * (sign - static_cast<float>(found.teacher));
  }
  return found.student;
}

// Two blocks for each image, one an axis: they work on sums, a hundredth of what the other kernels move, so that three
// launches of more blocks, one for each reduction, would take longer than these do.
static __global__ void __launch_bounds__(kMostThreads)
    focal_attention_kernel(const AttentionMseProblem p, FocalRoom room, int64_t tiles) {
  const FeatureMaps& maps = p.maps;
  const int64_t image = blockIdx.x / 2, space = image * maps.positions, depth = image * maps.channels;
  double distance;
  if (blockIdx.x % 2 == 0) {
    const double* sums = room.space + space;
    distance = compare_axis({sums, sums + maps.batch * maps.positions, maps.positions,
                             static_cast<double>(maps.channels), room.space_weight + space, room.space_slope + space},
                            p);
  } else {
    double* sums = room.depth + 2 * depth;
    for (int64_t c = threadIdx.x; c < 2 * maps.channels; c += blockDim.x) {
      double sum = 0;
      for (int64_t tile = 0; tile < tiles; ++tile) {
        sum += room.depth_of_tile[(image * tiles + tile) * 2 * maps.channels + c];
      }
      sums[c] = sum;
    }
    __syncthreads();
    distance = compare_axis({sums, sums + maps.channels, maps.channels, static_cast<double>(maps.positions),
                             room.depth_weight + depth, room.depth_slope + depth},
                            p);
  }
  if (threadIdx.x == 0) room.partials[blockIdx.x] = p.attention_gain * distance;
}

// A tile; its partial sum stands behind those of the axes.
template <typename scalar_t, int kWidth>
__global__ void __launch_bounds__(kThreads, kResident) focal_error_kernel(const AttentionMseProblem p, FocalRoom room) {
  using Block = MapTile<kWidth>;
  const FeatureMaps& maps = p.maps;
  const MapPlace place = map_place<kWidth>(maps);
  CompensatedSum sum;
  if (place.exists) {
    float weight[kWidth], slope[kWidth];
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const int64_t at = place.image * maps.positions + place.position + i;
      weight[i] = (p.weight == nullptr ? 1.0f : p.weight[at]) * room.space_weight[at];
      slope[i] = room.space_slope[at];
    }
#pragma unroll 2
    for (int64_t c = Block::slice(); c < maps.channels; c += Block::slices()) {
      const int64_t channel = place.image * maps.channels + c;
      const float depth_weight = room.depth_weight[channel], depth_slope = room.depth_slope[channel];
      float s[kWidth], t[kWidth], errors = 0.0f;
      load<kWidth>(student_plane<scalar_t>(maps, place.image, c) + place.position, s);
      load<kWidth>(teacher_plane<scalar_t>(maps, place.image, c) + place.position, t);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        // A weight of 0 counts 0, whatever it covers.
        const float d = weight[i] == 0.0f ? 0.0f : s[i] - t[i], error = weight[i] * depth_weight * d;
        errors = fmaf(error, d, errors);
        const float sign = static_cast<float>((s[i] > 0.0f) - (s[i] < 0.0f));
        s[i] = (2.0f * error + sign * (slope[i] + depth_slope)) * maps.gradient_scale;
      }
      sum.add(errors);
      if (maps.gradient != nullptr) store<kWidth>(gradient_plane<scalar_t>(maps, place.image, c) + place.position, s);
    }
  }
  const double total = block_sum(sum.total());
  if (threadIdx.x == 0) room.partials[2 * maps.batch + blockIdx.x] = total;
}

}  // namespace detkd
