// Strided classes of detkd::kl_div on vectors: kWidth neighbouring positions make a group, each has a lane.
#pragma once

#include "kl_div_group.h"

namespace detkd::DETKD_ISA {

// Where they are staged, all lanes may be read and written, and there is room to keep terms.
template <typename T, bool kStaged = false>
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
  int64_t losses[kWidth];  // places; only where they are not reduced

  // The group's positions are the first-th and following of the `all` from `at` on along inner.
  void place(const Offsets& at, int64_t first, int64_t all) {
    count = static_cast<int>(std::min<int64_t>(kWidth, all - first));
    for (int i = 0; i < count; ++i) {
      weights[i] = p.weight == nullptr ? 1.0f : p.weight[at.weight + (first + i) * p.weight_inner];
      if (!p.reduced) losses[i] = at.loss + (first + i) * p.loss_inner;
    }
  }

  void find_tops() {
    V s = set(kLowest), t = s;
    for (int64_t c = 0; c < p.classes; ++c) {
      s = max(load_part(student + c * student_stride, count, 0.0f), s);
      t = max(load_part(teacher + c * teacher_stride, count, 0.0f), t);
    }
    top = Tops::of(s, t, rate_of(p));
  }

  V weight() const { return load(weights); }
  const Tops& tops(const Rate&) const { return top; }

  bool is_void(int i) const {
    return (lane(equal(top.student, set(kLowest)), i) && !has_nan(student + i, p.classes, student_stride)) ||
           (lane(equal(top.teacher, set(kLowest)), i) && !has_nan(teacher + i, p.classes, teacher_stride));
  }

  Sums sums(const Rate& by) const {
    // Copies, or they would be read again after each term that is kept, which might have changed them for all C++ knows.
    const Tops tops = top;
    const Rate rate = by;
    return sum_blocks(p.classes, [&](int64_t begin, int64_t end) DETKD_INLINE {
      Sums sums = Sums::zero();
      for_bundles<2>(begin, end, [&](auto at) DETKD_INLINE {
        const auto term = kl_terms(fetch(student, student_stride, at), fetch(teacher, teacher_stride, at), tops, rate);
        sums.add(term);
        if (keeps()) keep(kept, at, term);
      });
      return sums;
    });
  }

  Sums wild_sums(M wild, const Rate& rate) const {
    return sum_blocks(p.classes, [&](int64_t begin, int64_t end) DETKD_INLINE {
      Sums sums = Sums::zero();
      for_bundles<1>(begin, end, [&](auto at) DETKD_INLINE {
        auto term = wild_terms_at(at, rate);
        sums.add_wild(term);
        if (keeps()) {
          const auto tame = recall(kept, at);
          term.e_t.parts[0] = select(wild, term.e_t.parts[0], tame.e_t.parts[0]);
          term.d.parts[0] = select(wild, term.d.parts[0], tame.d.parts[0]);
          keep(kept, at, term);
        }
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
        store_part(gradient + (at.begin + k) * gradient_stride, select(outcome.counts, slope.parts[k], set(0.0f)), lanes());
      }
    });
  }

  void write_losses(V values) const { scatter(values, count, p.loss, losses); }

 protected:
  DETKD_INLINE int lanes() const { return kStaged ? kWidth : count; }
  DETKD_INLINE bool keeps() const { return kStaged || kept != nullptr; }

  template <int K>
  DETKD_INLINE Bundle<K> fetch(const T* from, int64_t stride, At<K> at) const {
    Bundle<K> x;
    for (int k = 0; k < K; ++k) x.parts[k] = load_part(from + (at.begin + k) * stride, lanes(), 0.0f);
    return x;
  }

  template <int K>
  DETKD_INLINE Terms<Bundle<K>> wild_terms_at(At<K> at, const Rate& rate) const {
    return wild_terms(fetch(student, student_stride, at), fetch(teacher, teacher_stride, at), top, rate);
  }

  template <int K>
  DETKD_INLINE Bundle<K> student_exponentials(At<K> at, const Rate& rate) const {
    return student_exponential(fetch(student, student_stride, at), top, rate);
  }

  template <int K>
  DETKD_INLINE Bundle<K> slope_of(At<K> at, const Outcome& outcome, const Rate& rate) const {
    auto term = keeps() ? recall(kept, at) : wild_terms_at(at, rate);
    if (any(outcome.peaked)) {
      const auto e_s = student_exponentials(at, rate);
      for (int k = 0; k < K; ++k) term.d.parts[k] = select(outcome.peaked, e_s.parts[k], term.d.parts[k]);
    }
    return kl_slope(term, outcome.rho, outcome.factor);
  }
};

template <typename T>
using StagedColumns = ColumnGroup<T, true>;

}  // namespace detkd::DETKD_ISA
