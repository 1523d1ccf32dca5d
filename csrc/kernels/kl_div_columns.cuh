// CUDA kernels of detkd::kl_div where positions are neighbours in memory and classes are strided; see ops/problem.h for
// what they compute. A block takes a tile of positions, and its slices share out the classes.
#pragma once

#include "kl_div_terms.cuh"
#include "tile.cuh"

namespace detkd {

// 64 positions, sixteen classes to a warp; where vectors do not align 32 positions, eight classes to a warp.
template <int kWidth>
using KlTile = Tile<kWidth, kWidth == 1 ? kWarp : 64 / kWidth>;

// Classes of a thread: 32 logits of each tensor, or 8.
template <int kWidth>
constexpr int kHeldClasses = kWidth == 1 ? 8 : 32 / kWidth;
template <int kWidth>
constexpr int kClassesOfWarp = kHeldClasses<kWidth> * (kWarp / KlTile<kWidth>::kAcross);
constexpr int kMostColumnThreads = 384;  // leaves 168 registers a thread

// A thread's vector of positions. Threads beyond the last vector work on it again and write nothing. What is needed
// late is computed late: registers are full in between.
template <typename scalar_t, int kWidth>
struct KlColumns {
  using Block = KlTile<kWidth>;
  const KlDivProblem& p;

  __device__ int64_t first() const { return static_cast<int64_t>(blockIdx.x) * Block::kPositions; }  // of the tile
  __device__ int64_t positions() const { return p.outer.count * p.inner; }
  __device__ bool exists() const { return first() + Block::column() * kWidth < positions(); }

  template <typename T>
  __device__ T* place(T* tensor, const int64_t (&strides)[kMaxDims]) const {
    const int64_t position = first() + Block::column() * kWidth;
    const Division where = divide(exists() ? position : positions() - kWidth, p.inner);
    return tensor + offset(p.outer, strides, where.quotient) + where.remainder;
  }
  __device__ const scalar_t* student() const { return place(static_cast<const scalar_t*>(p.student), p.outer.student); }
  __device__ const scalar_t* teacher() const { return place(static_cast<const scalar_t*>(p.teacher), p.outer.teacher); }
  __device__ bool has_gradient() const { return p.gradient != nullptr && exists(); }
  __device__ scalar_t* gradient() const { return place(static_cast<scalar_t*>(p.gradient), p.outer.gradient); }

  // What the thread that speaks for a position of the tile does with its sums; returns its slope.
  __device__ KlSlope finish(int place, KlTops top, const KlSums& sums, float& total) const {
    const int64_t position = first() + place;
    if (position >= positions()) return KlSlope::throughout(0.0f);
    const Division where = divide(position, p.inner);
    float weight = 1.0f;
    if (p.weight != nullptr) {
      weight = p.weight[offset(p.outer, p.outer.weight, where.quotient) + where.remainder * p.weight_inner];
    }
    const KlOutcome outcome = kl_outcome({top, sums}, weight, p);
    if (!p.reduced) {
      p.loss[offset(p.outer, p.outer.loss, where.quotient) + where.remainder * p.loss_inner] = outcome.value;
    }
    total += outcome.value;
    return outcome.slope;
  }
};

__device__ inline void deliver_total(float total, const KlDivProblem& p, double* partials) {
  if (!p.reduced) return;
  total = over_block(total, Sum{});
  if (threadIdx.x == 0) partials[blockIdx.x] = total;
}

// Bytes of shared memory that the kernels below need.
template <int kWidth>
constexpr unsigned column_room(unsigned threads) {
  return KlTile<kWidth>::slots(threads) * sizeof(KlSums) + KlTile<kWidth>::kPositions * sizeof(KlTops);
}
template <int kWidth>
constexpr unsigned long_column_room(unsigned threads) {
  return KlTile<kWidth>::slots(threads) * sizeof(KlOnline);
}

// Each thread holds its classes in registers.
template <typename scalar_t, int kWidth>
__global__ void __launch_bounds__(kMostColumnThreads, 1) kl_div_column_kernel(const KlDivProblem p, double* partials) {
  using Block = KlTile<kWidth>;
  constexpr int kClasses = kHeldClasses<kWidth>;
  const KlColumns<scalar_t, kWidth> columns{p};
  const float rate = kl_rate(p);
  const scalar_t *student = columns.student(), *teacher = columns.teacher();
  float s[kClasses][kWidth], t[kClasses][kWidth];
#pragma unroll
  for (int k = 0; k < kClasses; ++k) {
    const int c = k * Block::slices() + Block::slice();
    if (c < p.classes) {
      load<kWidth>(student + c * p.student_stride, s[k]);
      load<kWidth>(teacher + c * p.teacher_stride, t[k]);
    } else {
#pragma unroll
      for (int i = 0; i < kWidth; ++i) s[k][i] = t[k][i] = -infinity();
    }
  }
  const auto top_of = [&](int i) {
    KlTops top{-infinity(), -infinity()};
#pragma unroll
    for (int k = 0; k < kClasses; ++k) top = HigherTops{}(top, {s[k][i], t[k][i]});
    return top;
  };
  // Behind the room of fold(): maxima for the threads that finish their positions, which are the same in both folds.
  KlTops* tops_of_tile = reinterpret_cast<KlTops*>(shared_memory<KlSums>() + Block::slots(blockDim.x));
  const auto tops = Block::fold(top_of, HigherTops{}, [&](int place, KlTops all) { return tops_of_tile[place] = all; });
  const auto sums_of = [&](int i) {
    KlSums sums{0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int k = 0; k < kClasses; ++k) {
      if (k * Block::slices() >= p.classes) break;  // of the whole block
      const KlTerms term = kl_terms(s[k][i], t[k][i], tops.at[i], rate);
      sums.add(term);
      s[k][i] = term.d;  // from here on the registers hold what the gradient is made of
      t[k][i] = term.low;
    }
    return sums;
  };
  float total = 0.0f;
  const auto slope = Block::fold(sums_of, Sum{}, [&](int place, const KlSums& all) {
    return columns.finish(place, tops_of_tile[place], all, total);
  });
  deliver_total(total, p, partials);
  if (!columns.has_gradient()) return;
  scalar_t* gradient = columns.gradient();
#pragma unroll
  for (int k = 0; k < kClasses; ++k) {
    const int c = k * Block::slices() + Block::slice();
    if (c >= p.classes) continue;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) s[k][i] = slope.at[i].of(t[k][i], s[k][i]);
    store<kWidth>(gradient + c * p.gradient_stride, s[k]);
  }
}

// Calls body(class, student, teacher) for the classes of this thread's slice, kAhead of them asked for at a time; the
// logits of a class that does not exist are -inf.
template <int kAhead, typename scalar_t, int kWidth, typename Body>
__device__ void each_classes(const KlColumns<scalar_t, kWidth>& columns, Body body) {
  using Block = KlTile<kWidth>;
  const KlDivProblem& p = columns.p;
  const scalar_t *student = columns.student(), *teacher = columns.teacher();
  for (int64_t first = Block::slice(); first < p.classes; first += kAhead * Block::slices()) {
    float s[kWidth][kAhead], t[kWidth][kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      const int64_t c = first + k * Block::slices();
      float of_s[kWidth], of_t[kWidth];
#pragma unroll
      for (int i = 0; i < kWidth; ++i) of_s[i] = of_t[i] = -infinity();
      if (c < p.classes) {
        load<kWidth>(student + c * p.student_stride, of_s);
        load<kWidth>(teacher + c * p.teacher_stride, of_t);
      }
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        s[i][k] = of_s[i];
        t[i][k] = of_t[i];
      }
    }
    body(first, s, t);
  }
}

struct KlTopsAndSlope {
  KlTops top;
  KlSlope slope;
};

// Reads everything twice: for maxima and sums at once, and for the gradient.
template <typename scalar_t, int kWidth>
__global__ void __launch_bounds__(kThreads, 1) kl_div_long_column_kernel(const KlDivProblem p, double* partials) {
  using Block = KlTile<kWidth>;
  constexpr int kAhead = kWidth == 8 ? 2 : 4;
  const KlColumns<scalar_t, kWidth> columns{p};
  const float rate = kl_rate(p);
  KlOnline online[kWidth];
#pragma unroll
  for (int i = 0; i < kWidth; ++i) online[i] = KlOnline::nothing();
  each_classes<kAhead>(columns, [&](int64_t, const auto& s, const auto& t) {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) online[i].add(s[i], t[i], rate);
  });
  const auto online_of = [&](int i) { return online[i]; };
  float total = 0.0f;
  const auto outcome = Block::fold(online_of, MergeOnline{rate}, [&](int place, const KlOnline& all) {
    return KlTopsAndSlope{all.top, columns.finish(place, all.top, all.sums, total)};
  });
  deliver_total(total, p, partials);
  if (!columns.has_gradient()) return;
  scalar_t* gradient = columns.gradient();
  each_classes<kAhead>(columns, [&](int64_t first, const auto& s, const auto& t) {
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      const int64_t c = first + k * Block::slices();
      if (c >= p.classes) continue;
      float slopes[kWidth];
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const KlTerms term = kl_terms(s[i][k], t[i][k], outcome.at[i].top, rate);
        slopes[i] = outcome.at[i].slope.of(term.low, term.d);
      }
      store<kWidth>(gradient + c * p.gradient_stride, slopes);
    }
  });
}

}  // namespace detkd
