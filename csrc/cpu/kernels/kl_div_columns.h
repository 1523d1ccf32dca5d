// Strided classes of detkd::kl_div on vectors: kWidth neighbouring positions make a group, each has a lane.
#pragma once

#include "kl_div_group.h"

namespace detkd::DETKD_ISA {

template <typename T>
struct ColumnGroup {
  const KlDivProblem& p;
  // Of the first position's first class, and from class to class. The gradient may take the student's place.
  const T* student;
  const T* teacher;
  T* gradient;
  int64_t student_stride, teacher_stride, gradient_stride;
  float* kept;  // e_t and d of each class, for the gradient; null: they are computed again
  Tops top;
  int count = kWidth;  // positions; lanes past the last hold 0 twice, which is a loss of 0
  float weights[kWidth] = {};
  int64_t losses[kWidth] = {};

  // The group's positions are the first-th and following of the `all` from `at` on along inner.
  void place(const Offsets& at, int64_t first, int64_t all) {
    count = static_cast<int>(std::min<int64_t>(kWidth, all - first));
    for (int i = 0; i < count; ++i) {
      weights[i] = p.weight == nullptr ? 1.0f : p.weight[at.weight + (first + i) * p.weight_inner];
      losses[i] = at.loss + (first + i) * p.loss_inner;
    }
  }

  void find_tops() {
    top.student = top.teacher = set(kLowest);
    for (int64_t c = 0; c < p.classes; ++c) {
      top.student = max(load_part(student + c * student_stride, count, 0.0f), top.student);
      top.teacher = max(load_part(teacher + c * teacher_stride, count, 0.0f), top.teacher);
    }
    top.difference = top.student - top.teacher;
  }

  V weight() const { return load(weights); }
  const Tops& tops() const { return top; }

  bool is_void(int i) const {
    return (lane(equal(top.student, set(kLowest)), i) && !has_nan(student + i, p.classes, student_stride)) ||
           (lane(equal(top.teacher, set(kLowest)), i) && !has_nan(teacher + i, p.classes, teacher_stride));
  }

  Sums sums(const Rate& rate) const {
    return sum_blocks(p.classes, [&](int64_t begin, int64_t end) DETKD_INLINE {
      Sums sums = Sums::zero();
      for_bundles<2>(begin, end, [&](auto at) DETKD_INLINE {
        const auto term = terms(at, rate);
        sums.add(term);
        if (kept != nullptr) keep(kept, at, term);
      });
      return sums;
    });
  }

  V student_sums(M /*peaked*/, const Rate& rate) const {
    return sum_blocks(p.classes, [&](int64_t begin, int64_t end) DETKD_INLINE {
      V sum = set(0.0f);
      for (int64_t c = begin; c < end; ++c) sum = sum + student_exponentials(At<1>{c}, rate).parts[0];
      return sum;
    });
  }

  void write_gradient(const Outcome& outcome, const Rate& rate) const {
    for_bundles<2>(0, p.classes, [&](auto at) DETKD_INLINE {
      const auto slope = slope_of(at, outcome, rate);
      for (int k = 0; k < at.size; ++k) {
        store_part(gradient + (at.begin + k) * gradient_stride, select(outcome.counts, slope.parts[k], set(0.0f)), count);
      }
    });
  }

  double deliver(V value) const {
    return DETKD_ISA::deliver(value, count, p, [&](int i) { return losses[i]; });
  }

 private:
  template <int K>
  DETKD_INLINE Bundle<K> fetch(const T* from, int64_t stride, At<K> at) const {
    Bundle<K> x;
    for (int k = 0; k < K; ++k) x.parts[k] = load_part(from + (at.begin + k) * stride, count, 0.0f);
    return x;
  }

  template <int K>
  DETKD_INLINE Terms<Bundle<K>> terms(At<K> at, const Rate& rate) const {
    return kl_terms(fetch(student, student_stride, at), fetch(teacher, teacher_stride, at), top, rate);
  }

  template <int K>
  DETKD_INLINE Bundle<K> student_exponentials(At<K> at, const Rate& rate) const {
    return student_exponential(fetch(student, student_stride, at), top, rate);
  }

  template <int K>
  DETKD_INLINE Bundle<K> slope_of(At<K> at, const Outcome& outcome, const Rate& rate) const {
    auto term = kept != nullptr ? recall(kept, at) : terms(at, rate);
    if (any(outcome.peaked)) {
      const auto e_s = student_exponentials(at, rate);
      for (int k = 0; k < K; ++k) term.d.parts[k] = select(outcome.peaked, e_s.parts[k], term.d.parts[k]);
    }
    return kl_slope(term, outcome.rho, outcome.factor);
  }
};

}  // namespace detkd::DETKD_ISA
