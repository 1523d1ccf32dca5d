// detkd::kl_div on vectors: which kind of group a problem takes.
#pragma once

#include "kl_div_rows.h"
#include "kl_div_short_rows.h"
#include "kl_div_tile.h"

namespace detkd::DETKD_ISA {

template <typename T>
double kl_div_short_rows(const KlDivProblem& p, int64_t begin, int64_t end) {
  ShortRows<T> rows(p);
  Wide total = Wide::zero();
  for (int64_t row = begin; row < end; row += kWidth) {
    rows.work(row, static_cast<int>(std::min<int64_t>(kWidth, end - row)), total);
  }
  return lane_sum(total);
}

template <typename T, bool kMasked>
double kl_div_long_rows(const KlDivProblem& p, int64_t begin, int64_t end) {
  using Group = RowGroup<T, kMasked>;
  const int64_t together = Group::rows(p.classes);
  Wide total = Wide::zero();
  for (int64_t row = begin; row < end; row += together) {
    Group group(p, row, static_cast<int>(std::min(together, end - row)));
    kl_div_group(group, p, total);
  }
  return lane_sum(total);
}

template <typename T>
double kl_div_rows(const KlDivProblem& p, int64_t begin, int64_t end) {
  if (p.mask != nullptr) return kl_div_long_rows<T, true>(p, begin, end);
  return p.classes <= kShort ? kl_div_short_rows<T>(p, begin, end) : kl_div_long_rows<T, false>(p, begin, end);
}

// So many classes that nothing of a group is kept between passes.
template <typename T>
void kl_div_many_columns(const KlDivProblem& p, const Offsets& at, int64_t count, Wide& total) {
  ColumnGroup<T> group{.p = p,
                       .student = static_cast<const T*>(p.student) + at.student,
                       .teacher = static_cast<const T*>(p.teacher) + at.teacher,
                       .gradient = static_cast<T*>(p.gradient) + at.gradient,
                       .student_stride = p.student_stride,
                       .teacher_stride = p.teacher_stride,
                       .gradient_stride = p.gradient_stride,
                       .kept = nullptr,
                       .top = {}};
  group.place(at, 0, count);
  group.find_tops();
  kl_div_group(group, p, total);
}

template <typename T>
double kl_div_columns(const KlDivProblem& p, int64_t begin, int64_t end) {
  const int64_t size = ColumnTile<T>::size(p.classes);
  ColumnTile<T> tile(p);
  Wide total = Wide::zero();
  for (int64_t position = begin; position < end;) {
    const int64_t first = position % p.inner;
    Offsets at = offsets(p.outer, position / p.inner);
    at.student += first;
    at.teacher += first;
    at.gradient += first;
    at.weight += first * p.weight_inner;
    at.loss += first * p.loss_inner;
    const int64_t count = std::min({size > 0 ? size : kWidth, p.inner - first, end - position});
    size > 0 ? tile.work(at, count, total) : kl_div_many_columns<T>(p, at, count, total);
    position += count;
  }
  return lane_sum(total);
}

template <typename T>
double kl_div_positions(const KlDivProblem& p, int64_t begin, int64_t end) {
  const double total = p.inner == 1 ? kl_div_rows<T>(p, begin, end) : kl_div_columns<T>(p, begin, end);
  fence();  // streamed stores become visible to other threads
  return total;
}

// Work on positions [begin, end); returns the unscaled sum of their values.
inline double kl_div(const KlDivProblem& p, int64_t begin, int64_t end) {
  return for_type<Half, BFloat16>(p.type, [&](auto x) { return kl_div_positions<decltype(x)>(p, begin, end); });
}

}  // namespace detkd::DETKD_ISA
