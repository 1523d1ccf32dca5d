// Long rows of detkd::kl_div on vectors: the classes of a position are neighbours, up to kWidth rows make a group.
#pragma once

#include "kl_div_group.h"

namespace detkd::DETKD_ISA {

template <typename T, bool kMasked>
class RowGroup {
 public:
  // Rows of a group: as many as stay in the nearest cache from one pass to the next.
  static int64_t rows(int64_t classes) { return std::clamp<int64_t>(2048 / classes, 1, kWidth); }

  RowGroup(const KlDivProblem& problem, int64_t first, int count)
      : p(problem), count(count), ahead(count * p.classes), whole(p.classes / kWidth) {
    const int64_t room = 2 * (whole + 1) * kWidth;
    float* buffer = p.gradient != nullptr && p.classes <= kKept ? scratch(count * room) : nullptr;
    Walk at(p.outer, first);
    for (int r = 0; r < count; ++r, ++at) {
      student[r] = static_cast<const T*>(p.student) + (*at).student;
      teacher[r] = static_cast<const T*>(p.teacher) + (*at).teacher;
      gradient[r] = static_cast<T*>(p.gradient) + (*at).gradient;
      weights[r] = p.weight == nullptr ? 1.0f : p.weight[(*at).weight];
      if (kMasked) mask[r] = p.mask + (*at).mask;
      if (!p.reduced) losses[r] = (*at).loss;
      kept[r] = buffer == nullptr ? nullptr : buffer + r * room;
    }
  }

  V weight() const { return load(weights); }

  Tops tops(const Rate& rate) {
    V s[kWidth], t[kWidth];
    for (int r = 0; r < kWidth; ++r) {
      s[r] = weights[r] != 0 ? highest(student[r], r) : set(0.0f);
      t[r] = weights[r] != 0 ? highest(teacher[r], r) : set(0.0f);
    }
    const Tops top = Tops::of(reduce_rows<Max>(s), reduce_rows<Max>(t), rate);
    store(top_student, top.student);
    store(top_teacher, top.teacher);
    store(floor, top.floor);
    return top;
  }

  bool is_void(int r) const {
    return (top_student[r] == kLowest && !has_nan_in(student[r], r)) ||
           (top_teacher[r] == kLowest && !has_nan_in(teacher[r], r));
  }

  Sums sums(const Rate& rate) const {
    // A copy, or it would be read again after each term that is kept, which might have changed it for all C++ knows.
    const Rate by = rate;
    return sums_over_rows([&](int r) DETKD_INLINE {
      if (weights[r] == 0) return Sums::zero();
      if (kept[r] == nullptr) return sums_of<false, false>(r, by);
      return whole <= kBlock ? sums_of<true, true>(r, by) : sums_of<true, false>(r, by);
    });
  }

  // Of the rows that are wild.
  Sums wild_sums(M wild, const Rate& rate) const {
    return sums_over_rows([&](int r) { return lane(wild, r) ? wild_sums_of(r, rate) : Sums::zero(); });
  }

  // Of the rows that are peaked.
  V student_sums(M peaked, const Rate& rate) const {
    V e_s[kWidth];
    for (int r = 0; r < kWidth; ++r) e_s[r] = lane(peaked, r) ? student_sum_of(r, rate) : set(0.0f);
    return reduce_rows<Sum>(e_s);
  }

  void write_gradient(const Outcome& outcome, const Rate& rate) {
    float rho[kWidth], factor[kWidth];
    store(rho, outcome.rho);
    store(factor, outcome.factor);
    const bool past = past_caches<T>(p);
    for (int r = 0; r < count; ++r) {
      const V by_rho = set(rho[r]), by_factor = set(factor[r]);
      const auto kept_terms = [&](auto at) DETKD_INLINE { return recall(kept[r], at); };
      if (!lane(outcome.counts, r)) {
        std::fill_n(gradient[r], p.classes, T{});
      } else if (lane(outcome.peaked, r)) {
        const Tops top = top_of(r);
        write<false>(gradient[r], by_rho, by_factor, [&](auto at) DETKD_INLINE {
          auto term = wild_terms_at(r, at, top, rate);
          term.d = student_exponential(fetch(student[r], r, at), top, rate);
          return term;
        });
      } else if (kept[r] == nullptr) {
        const Tops top = top_of(r);
        write<false>(gradient[r], by_rho, by_factor, [&](auto at) DETKD_INLINE { return wild_terms_at(r, at, top, rate); });
      } else if (!past) {
        write<false>(gradient[r], by_rho, by_factor, kept_terms);
      } else if (is_float_vectors(gradient[r])) {
        write<true>(gradient[r], by_rho, by_factor, kept_terms);
      } else {
        // Brought into whole lines first, in the place of the terms, which need more.
        T* slopes = reinterpret_cast<T*>(kept[r]);
        write<false>(slopes, by_rho, by_factor, kept_terms);
        copy_past_caches(gradient[r], slopes, p.classes * sizeof(T));
      }
    }
  }

  void write_losses(V values) const { scatter(values, count, p.loss, losses); }

 private:
  template <typename SumsOf>
  DETKD_INLINE static Sums sums_over_rows(const SumsOf& sums_of) {
    V e_t[kWidth], d[kWidth], y[kWidth];
    for (int r = 0; r < kWidth; ++r) {
      const Sums row = sums_of(r);
      e_t[r] = row.e_t;
      d[r] = row.d;
      y[r] = row.y;
    }
    return {reduce_rows<Sum>(e_t), reduce_rows<Sum>(d), reduce_rows<Sum>(y)};
  }

  Tops top_of(int r) const {
    return {set(top_student[r]), set(top_teacher[r]), set(top_student[r] - top_teacher[r]), set(floor[r])};
  }

  bool has_nan_in(const T* row, int r) const {
    if constexpr (!kMasked) return has_nan(row, p.classes, 1);
    bool found = false;
    for_row<1>([&](auto at) {
      const V x = fetch(row, r, at).parts[0];
      found = found || any(unordered(x, x));
    });
    return found;
  }

  V highest(const T* row, int r) const {
    Bundle<4> tops = {set(kLowest), set(kLowest), set(kLowest), set(kLowest)};
    for_row<4>([&](auto at) DETKD_INLINE {
      const auto x = fetch(row, r, at);
      for (int k = 0; k < at.size; ++k) tops.parts[k] = max(x.parts[k], tops.parts[k]);
    });
    return max(max(tops.parts[0], tops.parts[1]), max(tops.parts[2], tops.parts[3]));
  }

  template <bool kKeep, bool kOneBlock>
  DETKD_INLINE Sums sums_of(int r, const Rate& rate) const {
    const Tops top = top_of(r);
    // What fills the last vectors, and stands where the mask is 0: logits that differ as the maxima do and count nothing.
    // With -inf the row would be wild.
    const float low_t = floor[r], low_s = low_t + (top_student[r] - top_teacher[r]);
    float* to = kept[r];
    const auto add_to = [&](Sums& sums, auto at) DETKD_INLINE {
      // The next group's row: the processor does not foresee a walk over many short rows.
      prefetch(student[r] + ahead, at);
      prefetch(teacher[r] + ahead, at);
      auto term = kl_terms(fetch(student[r], r, at, low_s), fetch(teacher[r], r, at, low_t), top, rate);
      if constexpr (kMasked) {  // to a gradient of exactly 0
        for (int k = 0; k < at.size; ++k) {
          term.e_t.parts[k] = select(counts(r, at, k), term.e_t.parts[k], set(0.0f));
          term.d.parts[k] = select(counts(r, at, k), term.d.parts[k], set(0.0f));
        }
      }
      sums.add(term);
      if constexpr (kKeep) keep(to, at, term);
    };
    const auto block = [&](int64_t begin, int64_t end) DETKD_INLINE {
      Sums block = Sums::zero();
      for_bundles<2>(begin, end, [&](auto at) DETKD_INLINE { add_to(block, at); });
      return block;
    };
    Sums sums = kOneBlock ? block(0, whole) : sum_blocks(whole, block);
    if (has_tail()) add_to(sums, Tail{{whole}});
    return sums;
  }

  Sums wild_sums_of(int r, const Rate& rate) const {
    const Tops top = top_of(r);
    const auto add_to = [&](Sums& sums, auto at) DETKD_INLINE {
      const auto term = wild_terms_at(r, at, top, rate);
      sums.add_wild(term);
      if (kept[r] != nullptr) keep(kept[r], at, term);
    };
    Sums sums = sum_blocks(whole, [&](int64_t begin, int64_t end) DETKD_INLINE {
      Sums block = Sums::zero();
      for_bundles<2>(begin, end, [&](auto at) DETKD_INLINE { add_to(block, at); });
      return block;
    });
    if (has_tail()) add_to(sums, Tail{{whole}});
    return sums;
  }

  V student_sum_of(int r, const Rate& rate) const {
    const Tops top = top_of(r);
    const auto of = [&](auto at) DETKD_INLINE { return student_exponential(fetch(student[r], r, at), top, rate).parts[0]; };
    V sum = sum_blocks(whole, [&](int64_t begin, int64_t end) DETKD_INLINE {
      V block = set(0.0f);
      for (int64_t i = begin; i < end; ++i) block = block + of(At<1>{i});
      return block;
    });
    return has_tail() ? sum + of(Tail{{whole}}) : sum;
  }

  // Whether the row consists of whole vectors that may be written past the caches; those of 16-bit types are half a line.
  bool is_float_vectors(const T* row) const {
    return sizeof(T) == sizeof(float) && whole * kWidth == p.classes && reinterpret_cast<uintptr_t>(row) % sizeof(V) == 0;
  }

  template <bool kStream, typename TermsAt>
  DETKD_INLINE void write(T* to, V rho, V factor, const TermsAt& terms_at) const {
    for_row<2>([&](auto at) DETKD_INLINE { put<kStream>(to, at, kl_slope(terms_at(at), rho, factor)); });
  }

  template <typename Where>
  DETKD_INLINE auto wild_terms_at(int r, Where at, const Tops& top, const Rate& rate) const {
    return wild_terms(fetch(student[r], r, at), fetch(teacher[r], r, at), top, rate);
  }

  struct Tail : At<1> {};  // what is left of a row after its whole vectors
  bool has_tail() const { return whole * kWidth < p.classes; }

  // Calls body for all vectors of a row, K at a time.
  template <int K, typename Body>
  DETKD_INLINE void for_row(const Body& body) const {
    for_bundles<K>(0, whole, body);
    if (has_tail()) body(Tail{{whole}});
  }

  template <int K>
  DETKD_INLINE void prefetch(const T* row, At<K> at) const {
    for (int k = 0; k < K; ++k) __builtin_prefetch(row + (at.begin + k) * kWidth);
  }

  // The r-th row's logits. Lanes past the row, and those of mask 0, hold `fill`; kLowest counts nothing.
  template <int K>
  DETKD_INLINE Bundle<K> fetch(const T* row, int r, At<K> at, float fill = kLowest) const {
    Bundle<K> x;
    if constexpr (kMasked) {  // in order, as the mask is
      for (int k = 0; k < K; ++k) x.parts[k] = select(counts(r, at, k), load(row + (at.begin + k) * kWidth), set(fill));
    } else {
      for (int k = 0; k + 1 < K; k += 2) load_two(row + (at.begin + k) * kWidth, x.parts + k);
      if constexpr (K % 2 == 1) x.parts[K - 1] = load(row + (at.begin + K - 1) * kWidth);
    }
    return x;
  }
  DETKD_INLINE Bundle<1> fetch(const T* row, int r, Tail at, float fill = kLowest) const {
    const V x = load(row + at.begin * kWidth, p.classes - at.begin * kWidth, fill);
    if constexpr (!kMasked) return {x};
    return {select(counts(r, at, 0), x, set(fill))};
  }

  // Where the mask is not 0.
  template <int K>
  DETKD_INLINE M counts(int r, At<K> at, int k) const {
    return differ(load(mask[r] + (at.begin + k) * kWidth), set(0.0f));
  }
  DETKD_INLINE M counts(int r, Tail at, int) const {
    const int64_t place = at.begin * kWidth;
    return differ(load(mask[r] + place, p.classes - place, 0.0f), set(0.0f));
  }

  template <bool kStream, int K>
  DETKD_INLINE void put(T* row, At<K> at, const Bundle<K>& x) const {
    T* to = row + at.begin * kWidth;
    if constexpr (kStream) {
      for (int k = 0; k < K; ++k) stream(to + k * kWidth, x.parts[k]);
    } else if constexpr (K == 2 && !kMasked) {
      store_two(to, x.parts);
    } else {
      for (int k = 0; k < K; ++k) store(to + k * kWidth, x.parts[k]);
    }
  }
  template <bool>
  DETKD_INLINE void put(T* row, Tail at, const Bundle<1>& x) const {
    store(row + at.begin * kWidth, x.parts[0], p.classes - at.begin * kWidth);
  }

  const KlDivProblem& p;
  int count;
  int64_t ahead, whole;  // whole vectors of a row
  const T* student[kWidth];
  const T* teacher[kWidth];
  T* gradient[kWidth];
  const float* mask[kMasked ? kWidth : 1];
  float* kept[kWidth];  // e_t and d of each vector of classes
  int64_t losses[kWidth];
  float weights[kWidth] = {}, top_student[kWidth], top_teacher[kWidth], floor[kWidth];
};

}  // namespace detkd::DETKD_ISA
