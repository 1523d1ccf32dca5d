// Short rows of detkd::kl_div on vectors. kWidth rows are transposed into columns on the way in and back on the way out,
// so that every lane has work; a row of 21 classes would leave a third of its vectors empty.
#pragma once

#include "kl_div_columns.h"

namespace detkd::DETKD_ISA {

constexpr int64_t kShort = 64;

template <typename T>
class ShortRows {
 public:
  explicit ShortRows(const KlDivProblem& problem) : p(problem) {}

  // `count` rows from the first-th on; returns the sum of their values.
  double work(int64_t first, int count) {
    ColumnGroup<float> group{.p = p,
                             .student = staged,
                             .teacher = staged + kWidth,
                             .gradient = staged,
                             .student_stride = 2 * kWidth,
                             .teacher_stride = 2 * kWidth,
                             .gradient_stride = 2 * kWidth,
                             .kept = kept,
                             .top = {}};
    Offsets at[kWidth] = {};
    for (int r = 0; r < count; ++r) {
      at[r] = offsets(p.outer, first + r);
      group.weights[r] = p.weight == nullptr ? 1.0f : p.weight[at[r].weight];
      group.losses[r] = at[r].loss;
    }
    group.count = count;
    group.top = stage(at, count);
    const double total = kl_div_group(group, p);
    if (p.gradient != nullptr) write_out(at, count);
    return total;
  }

 private:
  // Transposes and finds the maxima.
  Tops stage(const Offsets* at, int count) const {
    V top_s = set(kLowest), top_t = top_s;
    for (int64_t c = 0; c < p.classes; c += kWidth) {
      const int64_t n = std::min<int64_t>(kWidth, p.classes - c);
      V s[kWidth], t[kWidth];
      for (int r = 0; r < kWidth; ++r) {  // rows past the last hold 0
        // The next rows: the processor does not foresee a walk over many short ones.
        __builtin_prefetch(static_cast<const T*>(p.student) + at[r].student + c + kWidth * p.classes);
        __builtin_prefetch(static_cast<const T*>(p.teacher) + at[r].teacher + c + kWidth * p.classes);
        s[r] = r < count ? load_part(static_cast<const T*>(p.student) + at[r].student + c, n, 0.0f) : set(0.0f);
        t[r] = r < count ? load_part(static_cast<const T*>(p.teacher) + at[r].teacher + c, n, 0.0f) : set(0.0f);
      }
      transpose(s);
      transpose(t);
      for (int i = 0; i < n; ++i) {
        top_s = max(s[i], top_s);
        top_t = max(t[i], top_t);
        store(staged + (c + i) * 2 * kWidth, s[i]);
        store(staged + (c + i) * 2 * kWidth + kWidth, t[i]);
      }
    }
    return {top_s, top_t, top_s - top_t};
  }

  void write_out(const Offsets* at, int count) const {
    for (int64_t c = 0; c < p.classes; c += kWidth) {
      const int64_t n = std::min<int64_t>(kWidth, p.classes - c);
      V block[kWidth];
      for (int i = 0; i < kWidth; ++i) block[i] = load(staged + (c + (i < n ? i : 0)) * 2 * kWidth);
      transpose(block);
      for (int r = 0; r < count; ++r) store_part(static_cast<T*>(p.gradient) + at[r].gradient + c, block[r], n);
    }
  }

  const KlDivProblem& p;
  float* staged = scratch(4 * kShort * kWidth);  // [class][student or gradient, teacher][row]
  float* kept = staged + 2 * kShort * kWidth;
};

}  // namespace detkd::DETKD_ISA
