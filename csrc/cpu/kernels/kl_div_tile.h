// Positions of detkd::kl_div whose classes are strided, brought together.
//
// Classes often lie a power of two apart, where all of them fall on the same few lines of the caches and would be fetched
// again by every pass. So a tile of neighbouring positions is copied once, worked on group by group, and its gradient,
// which takes the student's place, is written in whole lines too.
#pragma once

#include "kl_div_columns.h"

namespace detkd::DETKD_ISA {

constexpr int64_t kTileBytes = 256;  // of one class

template <typename T>
class ColumnTile {
 public:
  // Positions of a tile; 0 where there are so many classes that not even a group of them can be kept.
  static int64_t size(int64_t classes) {
    return std::min<int64_t>(kTileBytes / sizeof(T), kKept / classes / kWidth * kWidth);
  }

  explicit ColumnTile(const KlDivProblem& problem)
      : p(problem),
        positions(size(p.classes)),
        kept(scratch(2 * p.classes * (kWidth + positions))),
        staged(reinterpret_cast<T*>(kept + 2 * p.classes * kWidth)) {}

  // `count` positions of one run; adds their values to `total`.
  void work(const Offsets& at, int64_t count, Wide& total) {
    const T* student = static_cast<const T*>(p.student) + at.student;
    const T* teacher = static_cast<const T*>(p.teacher) + at.teacher;
    count == kGroups * kWidth ? stage<true>(student, teacher, count) : stage<false>(student, teacher, count);
    for (int g = 0; g * kWidth < count; ++g) {
      T* first = staged + g * kWidth;
      StagedColumns<T> group{.p = p,
                           .student = first,
                           .teacher = first + positions,
                           .gradient = first,
                           .student_stride = 2 * positions,
                           .teacher_stride = 2 * positions,
                           .gradient_stride = 2 * positions,
                           .kept = kept,
                           .top = Tops::of(top_s[g], top_t[g], rate_of(p))};
      group.place(at, g * kWidth, count);
      kl_div_group(group, p, total);
    }
    if (p.gradient != nullptr) write_out(static_cast<T*>(p.gradient) + at.gradient, count);
  }

 private:
  static constexpr int kGroups = kTileBytes / sizeof(T) / kWidth;

  // Copies and finds the maxima. Lanes past the last position hold 0.
  template <bool kWhole>
  void stage(const T* student, const T* teacher, int64_t count) {
    V s[kGroups], t[kGroups];
    for (int g = 0; g < kGroups; ++g) s[g] = t[g] = set(kLowest);
    for (int64_t c = 0; c < p.classes; ++c, student += p.student_stride, teacher += p.teacher_stride) {
      T* to = staged + c * 2 * positions;
      fetch_next(student);
      fetch_next(teacher);
      for (int g = 0; g < kGroups; ++g) {
        const int64_t first = g * kWidth, n = kWhole ? kWidth : std::min<int64_t>(kWidth, count - first);
        if (n <= 0) break;
        s[g] = max(copy(student + first, to + first, n), s[g]);
        t[g] = max(copy(teacher + first, to + positions + first, n), t[g]);
      }
    }
    std::copy_n(s, kGroups, top_s);
    std::copy_n(t, kGroups, top_t);
  }

  // The same class of the next tile, into the second cache: it arrives while this tile is worked on.
  static void fetch_next(const T* from) {
    for (int64_t byte = 0; byte < kTileBytes; byte += kLine) {
      __builtin_prefetch(reinterpret_cast<const char*>(from) + kTileBytes + byte, 0, 2);
    }
  }

  static V copy(const T* from, T* to, int64_t n) {
    if (n < kWidth) {
      store(to, load(from, n, 0.0f));
    } else {
      std::memcpy(to, from, kWidth * sizeof(T));
    }
    return load(to);
  }

  void write_out(T* gradient, int64_t count) const {
    const bool past = past_caches<T>(p);
    const int64_t bytes = count * sizeof(T);
    for (int64_t c = 0; c < p.classes; ++c, gradient += p.gradient_stride) {
      const T* from = staged + c * 2 * positions;
      past ? copy_past_caches(gradient, from, bytes) : static_cast<void>(std::memcpy(gradient, from, bytes));
    }
  }

  const KlDivProblem& p;
  int64_t positions;
  float* kept;
  T* staged;  // [class][student or gradient, teacher][position]
  V top_s[kGroups], top_t[kGroups];
};

}  // namespace detkd::DETKD_ISA
