// CUDA kernels of detkd::kl_div where the classes of a position are neighbours in memory; see ops/problem.h for what
// they compute. A team of threads takes a row and holds it in registers; a row that is too long for that, and one with a
// mask, is read twice.
#pragma once

#include "kl_div_terms.cuh"
#include "vectors.cuh"

namespace detkd {

// Neighbouring lanes of a warp, their number a power of two.
struct LaneTeam {
  static constexpr int kMost = kThreads;  // threads of a block
  int lanes;

  __device__ int size() const { return lanes; }
  __device__ int rank() const { return threadIdx.x & (lanes - 1); }
  __device__ int64_t row() const { return (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / lanes; }
  template <typename T, typename Combine>
  __device__ T over(T x, Combine combine) const {
    return over_lanes(x, 1, lanes, combine);
  }
};

struct BlockTeam {
  static constexpr int kMost = kMostThreads;

  __device__ int size() const { return blockDim.x; }
  __device__ int rank() const { return threadIdx.x; }
  __device__ int64_t row() const { return blockIdx.x; }
  template <typename T, typename Combine>
  __device__ T over(T x, Combine combine) const {
    return over_block(x, combine);
  }
};

// One row of the problem. Teams beyond the last row work on it again, for the lanes that wait for them, and write
// nothing.
template <typename scalar_t>
struct KlRow {
  const scalar_t *student, *teacher;
  int64_t index;
  bool owned;

  __device__ KlRow(const KlDivProblem& p, int64_t row) : index(row), owned(row < p.outer.count) {
    if (!owned) index = p.outer.count - 1;
    student = static_cast<const scalar_t*>(p.student) + offset(p.outer, p.outer.student, index);
    teacher = static_cast<const scalar_t*>(p.teacher) + offset(p.outer, p.outer.teacher, index);
  }
  __device__ bool has_gradient(const KlDivProblem& p) const { return owned && p.gradient != nullptr; }
  __device__ scalar_t* gradient(const KlDivProblem& p) const {
    return static_cast<scalar_t*>(p.gradient) + offset(p.outer, p.outer.gradient, index);
  }
  __device__ float weight(const KlDivProblem& p) const {
    return p.weight == nullptr ? 1.0f : p.weight[offset(p.outer, p.outer.weight, index)];
  }

  // Writes the row's value, or adds those of the block up for the second pass. `first`: the thread that speaks for its
  // row.
  __device__ void deliver(float value, bool first, const KlDivProblem& p, double* partials) const {
    if (!p.reduced) {
      if (first && owned) p.loss[offset(p.outer, p.outer.loss, index)] = value;
      return;
    }
    const float sum = over_block(first && owned ? value : 0.0f, Sum{});
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
  }
};

// Each thread holds kVectors vectors of its row.
template <typename scalar_t, int kWidth, int kVectors, typename Team>
__global__ void __launch_bounds__(Team::kMost) kl_div_row_kernel(const KlDivProblem p, Team team, double* partials) {
  const KlRow<scalar_t> row(p, team.row());
  const float rate = kl_rate(p);
  float s[kVectors][kWidth], t[kVectors][kWidth];
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int c = (v * team.size() + team.rank()) * kWidth;
    if (c < p.classes) {
      load<kWidth>(row.student + c, s[v]);
      load<kWidth>(row.teacher + c, t[v]);
    } else {
#pragma unroll
      for (int i = 0; i < kWidth; ++i) s[v][i] = t[v][i] = -infinity();
    }
  }
  KlTops top{-infinity(), -infinity()};
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) top = HigherTops{}(top, {s[v][i], t[v][i]});
  }
  top = team.over(top, HigherTops{});
  KlSums sums{0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (v * team.size() * kWidth >= p.classes) break;  // of the whole team
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const KlTerms term = kl_terms(s[v][i], t[v][i], top, rate);
      sums.add(term);
      s[v][i] = term.d;  // from here on the registers hold what the gradient is made of
      t[v][i] = term.low;
    }
  }
  const KlOutcome outcome = kl_outcome({top, team.over(sums, Sum{})}, row.weight(p), p);
  row.deliver(outcome.value, team.rank() == 0, p, partials);
  if (!row.has_gradient(p)) return;
  scalar_t* gradient = row.gradient(p);
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int c = (v * team.size() + team.rank()) * kWidth;
    if (c >= p.classes) continue;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) s[v][i] = outcome.slope.of(t[v][i], s[v][i]);
    store<kWidth>(gradient + c, s[v]);
  }
}

// A row's mask: what it leaves out is -inf in student and teacher.
struct KlMask {
  const float* from;

  template <int kWidth>
  __device__ void apply(int64_t c, float (&s)[kWidth], float (&t)[kWidth]) const {
    constexpr int kPart = kWidth == 1 ? 1 : kWidest<float>;
#pragma unroll
    for (int part = 0; part < kWidth; part += kPart) {
      float mask[kPart];
      load<kPart>(from + c + part, mask);
#pragma unroll
      for (int i = 0; i < kPart; ++i) {
        if (mask[i] == 0.0f) s[part + i] = t[part + i] = -infinity();
      }
    }
  }
};

struct NoKlMask {
  template <int kWidth>
  __device__ void apply(int64_t, float (&)[kWidth], float (&)[kWidth]) const {}
};

// Calls body(first class, student, teacher) for the vectors of a row that this thread of a block owns. Two vectors of
// each are asked for before the first is worked on.
template <int kWidth, typename scalar_t, typename Mask, typename Body>
__device__ void each_vector(const KlRow<scalar_t>& row, const Mask& mask, int64_t classes, Body body) {
  constexpr int kAhead = 2;
  const int64_t step = static_cast<int64_t>(blockDim.x) * kWidth;
  for (int64_t first = static_cast<int64_t>(threadIdx.x) * kWidth; first < classes; first += kAhead * step) {
    float s[kAhead][kWidth], t[kAhead][kWidth];
#pragma unroll
    for (int v = 0; v < kAhead; ++v) {
      if (first + v * step >= classes) continue;
      load<kWidth>(row.student + first + v * step, s[v]);
      load<kWidth>(row.teacher + first + v * step, t[v]);
      mask.apply(first + v * step, s[v], t[v]);
    }
#pragma unroll
    for (int v = 0; v < kAhead; ++v) {
      if (first + v * step < classes) body(first + v * step, s[v], t[v]);
    }
  }
}

// A block takes a row and reads it twice: for maxima and sums at once, and for the gradient.
template <int kWidth, typename scalar_t, typename Mask>
__device__ void kl_div_long_row(const KlRow<scalar_t>& row, const Mask& mask, const KlDivProblem& p, double* partials) {
  const float rate = kl_rate(p);
  KlOnline online = KlOnline::nothing();
  each_vector<kWidth>(row, mask, p.classes,
                      [&](int64_t, const float (&s)[kWidth], const float (&t)[kWidth]) { online.add(s, t, rate); });
  online = over_block(online, MergeOnline{rate});
  const KlOutcome outcome = kl_outcome(online, row.weight(p), p);
  row.deliver(outcome.value, threadIdx.x == 0, p, partials);
  if (!row.has_gradient(p)) return;
  scalar_t* gradient = row.gradient(p);
  each_vector<kWidth>(row, mask, p.classes, [&](int64_t c, const float (&s)[kWidth], const float (&t)[kWidth]) {
    float slopes[kWidth];
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const KlTerms term = kl_terms(s[i], t[i], online.top, rate);
      slopes[i] = outcome.slope.of(term.low, term.d);
    }
    store<kWidth>(gradient + c, slopes);
  });
}

template <typename scalar_t, int kWidth>
__global__ void __launch_bounds__(kMostThreads) kl_div_long_row_kernel(const KlDivProblem p, double* partials) {
  kl_div_long_row<kWidth>(KlRow<scalar_t>(p, blockIdx.x), NoKlMask{}, p, partials);
}

template <typename scalar_t, int kWidth>
__global__ void __launch_bounds__(kMostThreads) kl_div_masked_row_kernel(const KlDivProblem p, double* partials) {
  const KlMask mask{p.mask + offset(p.outer, p.outer.mask, blockIdx.x)};
  kl_div_long_row<kWidth>(KlRow<scalar_t>(p, blockIdx.x), mask, p, partials);
}

}  // namespace detkd
