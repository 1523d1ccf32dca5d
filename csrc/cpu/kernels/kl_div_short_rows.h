// Short rows of detkd::kl_div on vectors. kWidth rows are transposed into columns on the way in and back on the way out,
// so that every lane has work; a row of 21 classes would leave a third of its vectors empty. Four classes of all rows are
// taken at a time: what is left over at the end of a row costs no more than the rest, the last four overlap those before.
#pragma once

#include "kl_div_columns.h"

namespace detkd::DETKD_ISA {

constexpr int64_t kShort = 48;
constexpr int64_t kTaken = 4;  // classes at a time

// kWidth rows, `stride` elements apart.
template <typename T>
struct Rows {
  T* first;
  int64_t stride;
};

template <typename T>
struct ShortGroup : StagedColumns<float> {
  Rows<T> slopes;

  void write_gradient(const Outcome& outcome, const Rate& rate) const {
    for_taken(p.classes, [&](int64_t c) DETKD_INLINE {
      V columns[kTaken];
      for (int64_t i = 0; i < kTaken; i += 2) {
        const auto slope = slope_of(At<2>{c + i}, outcome, rate);
        columns[i] = select(outcome.counts, slope.parts[0], set(0.0f));
        columns[i + 1] = select(outcome.counts, slope.parts[1], set(0.0f));
      }
      transpose_blocks(columns);
      for (int64_t i = 0; i < kTaken; ++i) {
        store_blocks(slopes.first + c + i * slopes.stride, 4 * slopes.stride, columns[i]);
      }
    });
  }

  // Calls body with the first of every four classes.
  template <typename Body>
  static DETKD_INLINE void for_taken(int64_t classes, const Body& body) {
    int64_t c = 0;
    for (; c + kTaken < classes; c += kTaken) body(c);
    body(std::max<int64_t>(classes - kTaken, 0));
  }
};

template <typename T>
class ShortRows {
 public:
  explicit ShortRows(const KlDivProblem& problem) : p(problem) {}

  // `count` rows from the first-th on; adds their values to `total`.
  void work(int64_t first, int count, Wide& total) {
    Walk at(p.outer, first);
    const Rows<const T> student{static_cast<const T*>(p.student) + (*at).student, p.outer.student[at.dimension()]};
    const Rows<const T> teacher{static_cast<const T*>(p.teacher) + (*at).teacher, p.outer.teacher[at.dimension()]};
    const Rows<T> gradient{static_cast<T*>(p.gradient) + (*at).gradient, p.outer.gradient[at.dimension()]};
    if (count == kWidth && at.ahead() >= kWidth && p.classes >= kTaken) {
      return work(at, count, student, teacher, gradient, total);
    }
    // Rows that are too few, too short or not evenly apart are brought together first.
    const int64_t stride = std::max(p.classes, kTaken);
    const Rows<T> s{together, stride}, t{together + kWidth * stride, stride};
    copy_in(first, count, s, t);
    work(at, count, {s.first, stride}, {t.first, stride}, s, total);
    if (p.gradient != nullptr) copy_out(first, count, s);
  }

 private:
  void work(Walk at, int count, Rows<const T> student, Rows<const T> teacher, Rows<T> gradient, Wide& total) {
    ShortGroup<T> group{{.p = p,
                         .student = staged,
                         .teacher = staged + kWidth,
                         .gradient = nullptr,
                         .student_stride = 2 * kWidth,
                         .teacher_stride = 2 * kWidth,
                         .gradient_stride = 0,
                         .kept = kept,
                         .top = stage(student, teacher)},
                        gradient};
    group.count = count;
    if (p.weight == nullptr) std::fill_n(group.weights, count, 1.0f);
    for (int r = 0; r < count && !(p.weight == nullptr && p.reduced); ++r, ++at) {
      if (p.weight != nullptr) group.weights[r] = p.weight[(*at).weight];
      group.losses[r] = (*at).loss;
    }
    kl_div_group(group, p, total);
  }

  // Transposes and finds the maxima.
  Tops stage(const Rows<const T>& student, const Rows<const T>& teacher) const {
    V top_s = set(kLowest), top_t = top_s;
    ShortGroup<T>::for_taken(p.classes, [&](int64_t c) DETKD_INLINE {
      top_s = max(take(student, c, staged), top_s);
      top_t = max(take(teacher, c, staged + kWidth), top_t);
    });
    return Tops::of(top_s, top_t, rate_of(p));
  }

  // Returns the maxima of what is taken.
  static DETKD_INLINE V take(const Rows<const T>& rows, int64_t c, float* to) {
    V columns[kTaken];
    for (int64_t i = 0; i < kTaken; ++i) {
      columns[i] = load_blocks(rows.first + c + i * rows.stride, 4 * rows.stride);
      // The next rows: the processor does not foresee a walk over many short ones.
      __builtin_prefetch(rows.first + kWidth * rows.stride + (c + i) * kWidth);
    }
    transpose_blocks(columns);
    for (int64_t i = 0; i < kTaken; ++i) store(to + (c + i) * 2 * kWidth, columns[i]);
    return max(max(columns[0], columns[1]), max(columns[2], columns[3]));
  }

  // Rows past the last hold 0, classes past the last -inf.
  void copy_in(int64_t first, int count, const Rows<T>& student, const Rows<T>& teacher) const {
    std::memset(together, 0, 2 * kWidth * student.stride * sizeof(T));
    Walk at(p.outer, first);
    for (int r = 0; r < count; ++r, ++at) {
      T *s = student.first + r * student.stride, *t = teacher.first + r * teacher.stride;
      for (int64_t c = p.classes; c < kTaken; ++c) {
        store(s + c, set(kLowest), 1);
        store(t + c, set(kLowest), 1);
      }
      std::copy_n(static_cast<const T*>(p.student) + (*at).student, p.classes, s);
      std::copy_n(static_cast<const T*>(p.teacher) + (*at).teacher, p.classes, t);
    }
  }

  void copy_out(int64_t first, int count, const Rows<T>& slopes) const {
    Walk at(p.outer, first);
    for (int r = 0; r < count; ++r, ++at) {
      std::copy_n(slopes.first + r * slopes.stride, p.classes, static_cast<T*>(p.gradient) + (*at).gradient);
    }
  }

  const KlDivProblem& p;
  float* staged = scratch(6 * kShort * kWidth);  // [class][student, teacher][row]
  float* kept = staged + 2 * kShort * kWidth;
  T* together = reinterpret_cast<T*>(kept + 2 * kShort * kWidth);  // [student or gradient, teacher][row][class]
};

}  // namespace detkd::DETKD_ISA
