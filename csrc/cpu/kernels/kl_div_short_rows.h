// Short rows of detkd::kl_div on vectors. kWidth rows are transposed into columns on the way in and back on the way out,
// so that every lane has work; a row of 21 classes would leave a third of its vectors empty.
#pragma once

#include "kl_div_terms.h"

namespace detkd::DETKD_ISA {

constexpr int64_t kShort = 64;

template <typename T>
class ShortRowGroup {
 public:
  ShortRowGroup(const KlDivProblem& problem, int64_t first, int count, float* scratch)
      : p(problem), count(count), staged(scratch) {
    for (int r = 0; r < count; ++r) {
      at[r] = offsets(p.outer, first + r);
      weights[r] = p.weight == nullptr ? 1.0f : p.weight[at[r].weight];
    }
  }

  V weight() const { return load(weights); }

  Tops tops() {
    V s = set(kLowest), t = s;
    for (int64_t c = 0; c < p.classes; c += kWidth) {
      V block_s[kWidth], block_t[kWidth];
      for (int r = 0; r < kWidth; ++r) {
        block_s[r] = fetch(static_cast<const T*>(p.student), at[r].student, r, c);
        block_t[r] = fetch(static_cast<const T*>(p.teacher), at[r].teacher, r, c);
      }
      transpose(block_s);
      transpose(block_t);
      for (int i = 0; i < std::min<int64_t>(kWidth, p.classes - c); ++i) {
        s = max(block_s[i], s);
        t = max(block_t[i], t);
        store(staged + (c + i) * 2 * kWidth, block_s[i]);
        store(staged + (c + i) * 2 * kWidth + kWidth, block_t[i]);
      }
    }
    return top = {s, t, s - t};
  }

  bool is_void(int r) const {
    return (lane(equal(top.student, set(kLowest)), r) && !has_nan(student(r), p.classes, 1)) ||
           (lane(equal(top.teacher, set(kLowest)), r) && !has_nan(teacher(r), p.classes, 1));
  }

  Sums sums(V rate) const {
    Sums sums = Sums::zero();
    for (int64_t c = 0; c < p.classes; ++c) {
      float* kept = staged + c * 2 * kWidth;
      const Terms term = kl_terms(load(kept), load(kept + kWidth), top, rate);
      sums.add(term);
      store(kept, term.e_t);
      store(kept + kWidth, term.d);
    }
    return sums;
  }

  void write_gradient(const Outcome& outcome, V) const {
    for (int64_t c = 0; c < p.classes; c += kWidth) {
      const int64_t n = std::min<int64_t>(kWidth, p.classes - c);
      V block[kWidth];
      for (int i = 0; i < kWidth; ++i) {
        const float* kept = staged + (c + (i < n ? i : 0)) * 2 * kWidth;
        block[i] = kl_slope(load(kept), load(kept + kWidth), outcome.rho, outcome.factor);
      }
      transpose(block);
      for (int r = 0; r < count; ++r) {
        T* to = static_cast<T*>(p.gradient) + at[r].gradient + c;
        store_part(to, block[r], n);
      }
    }
  }

  double deliver(V value) const {
    return DETKD_ISA::deliver(value, count, p, [&](int r) { return at[r].loss; });
  }

 private:
  const T* student(int r) const { return static_cast<const T*>(p.student) + at[r].student; }
  const T* teacher(int r) const { return static_cast<const T*>(p.teacher) + at[r].teacher; }

  // Rows past the last hold 0 twice, which is a loss of 0.
  V fetch(const T* from, int64_t offset, int r, int64_t c) const {
    if (r >= count) return set(0.0f);
    return load_part(from + offset + c, std::min<int64_t>(kWidth, p.classes - c), 0.0f);
  }

  const KlDivProblem& p;
  int count;
  float* staged;  // [class][student and teacher, then e_t and d][row]
  Offsets at[kWidth];
  Tops top;
  float weights[kWidth] = {};
};

}  // namespace detkd::DETKD_ISA
