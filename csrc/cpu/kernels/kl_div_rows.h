// Long rows of detkd::kl_div on vectors: the classes of a position are neighbours, kWidth rows make a group.
#pragma once

#include "kl_div_terms.h"

namespace detkd::DETKD_ISA {

template <typename T>
class RowGroup {
 public:
  RowGroup(const KlDivProblem& problem, int64_t first, int count, float* scratch)
      : p(problem), count(count), ahead(count * p.classes), past_caches(streams_logits<T>(p, p.classes)) {
    const int64_t room = 2 * ((p.classes + kWidth - 1) / kWidth) * kWidth;
    for (int r = 0; r < count; ++r) {
      const Offsets at = offsets(p.outer, first + r);
      student[r] = static_cast<const T*>(p.student) + at.student;
      teacher[r] = static_cast<const T*>(p.teacher) + at.teacher;
      gradient[r] = static_cast<T*>(p.gradient) + at.gradient;
      weights[r] = p.weight == nullptr ? 1.0f : p.weight[at.weight];
      losses[r] = at.loss;
      kept[r] = scratch == nullptr ? nullptr : scratch + r * room;
    }
  }

  V weight() const { return load(weights); }

  Tops tops() {
    V s[kWidth], t[kWidth];
    for (int r = 0; r < kWidth; ++r) {
      s[r] = t[r] = set(0.0f);
      if (weights[r] != 0) top_of(r, s[r], t[r]);
    }
    const V top_s = reduce_rows<Max>(s), top_t = reduce_rows<Max>(t);
    store(top_student, top_s);
    store(top_teacher, top_t);
    return {top_s, top_t, top_s - top_t};
  }

  bool is_void(int r) const {
    return (top_student[r] == kLowest && !has_nan(student[r], p.classes, 1)) ||
           (top_teacher[r] == kLowest && !has_nan(teacher[r], p.classes, 1));
  }

  Sums sums(V rate) {
    V e_t[kWidth], d[kWidth], y[kWidth];
    float nan[kWidth] = {};
    for (int r = 0; r < kWidth; ++r) {
      Sums row = Sums::zero();
      if (weights[r] != 0) row = sums_of(r, rate);
      e_t[r] = row.e_t;
      d[r] = row.d;
      y[r] = row.y;
      nan[r] = any(row.nan) ? 1.0f : 0.0f;
    }
    Sums all;
    all.e_t = reduce_rows<Sum>(e_t);
    all.d = reduce_rows<Sum>(d);
    all.y = reduce_rows<Sum>(y);
    all.nan = less(set(0.0f), load(nan));
    return all;
  }

  void write_gradient(const Outcome& outcome, V rate) {
    float rho[kWidth], factor[kWidth];
    store(rho, outcome.rho);
    store(factor, outcome.factor);
    for (int r = 0; r < count; ++r) {
      if (weights[r] == 0) {
        std::fill_n(gradient[r], p.classes, T{});
      } else {
        gradient_of(r, set(rho[r]), set(factor[r]), rate);
      }
    }
  }

  double deliver(V value) const {
    return DETKD_ISA::deliver(value, count, p, [&](int r) { return losses[r]; });
  }

 private:
  Tops top_of(int r) const {
    return {set(top_student[r]), set(top_teacher[r]), set(top_student[r] - top_teacher[r])};
  }

  void top_of(int r, V& s, V& t) const {
    s = t = set(kLowest);
    int64_t c = 0;
    for (; c + kWidth <= p.classes; c += kWidth) {
      s = max(load(student[r] + c), s);
      t = max(load(teacher[r] + c), t);
    }
    if (c < p.classes) {
      s = max(load(student[r] + c, p.classes - c, kLowest), s);
      t = max(load(teacher[r] + c, p.classes - c, kLowest), t);
    }
  }

  Sums sums_of(int r, V rate) const {
    const Tops top = top_of(r);
    Sums sums = Sums::zero();
    int64_t c = 0;
    for (; c + kWidth <= p.classes; c += kWidth) {
      // The next group's row: the processor does not foresee a walk over many short rows.
      __builtin_prefetch(student[r] + c + ahead);
      __builtin_prefetch(teacher[r] + c + ahead);
      const Terms term = kl_terms(load(student[r] + c), load(teacher[r] + c), top, rate);
      sums.add(term);
      keep(r, c, term);
    }
    if (c < p.classes) {
      // Lanes past the row hold -inf twice, which counts nothing.
      const int64_t n = p.classes - c;
      const Terms term = kl_terms(load(student[r] + c, n, kLowest), load(teacher[r] + c, n, kLowest), top, rate);
      sums.add(term);
      keep(r, c, term);
    }
    return sums;
  }

  void keep(int r, int64_t c, const Terms& term) const {
    if (kept[r] == nullptr) return;
    store(kept[r] + 2 * c, term.e_t);
    store(kept[r] + 2 * c + kWidth, term.d);
  }

  void gradient_of(int r, V rho, V factor, V rate) const {
    const Tops top = top_of(r);
    int64_t c = 0;
    for (; c + kWidth <= p.classes; c += kWidth) {
      const V x = slope(r, c, kWidth, top, rate, rho, factor);
      put(gradient[r] + c, x, kWidth, past_caches);
    }
    if (c < p.classes) store(gradient[r] + c, slope(r, c, p.classes - c, top, rate, rho, factor), p.classes - c);
  }

  V slope(int r, int64_t c, int64_t n, const Tops& top, V rate, V rho, V factor) const {
    if (kept[r] != nullptr) return kl_slope(load(kept[r] + 2 * c), load(kept[r] + 2 * c + kWidth), rho, factor);
    const Terms term = kl_terms(load(student[r] + c, n, kLowest), load(teacher[r] + c, n, kLowest), top, rate);
    return kl_slope(term.e_t, term.d, rho, factor);
  }

  const KlDivProblem& p;
  int count;
  int64_t ahead;
  bool past_caches;
  const T* student[kWidth];
  const T* teacher[kWidth];
  T* gradient[kWidth];
  float* kept[kWidth];  // e_t and d of each vector of classes
  int64_t losses[kWidth];
  float weights[kWidth] = {}, top_student[kWidth], top_teacher[kWidth];
};

}  // namespace detkd::DETKD_ISA
