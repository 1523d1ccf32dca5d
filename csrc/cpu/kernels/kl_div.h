// detkd::kl_div on vectors: what happens to a group of positions, and which kind of group a problem takes.
#pragma once

#include "kl_div_columns.h"
#include "kl_div_rows.h"
#include "kl_div_short_rows.h"

namespace detkd::DETKD_ISA {

template <typename Group>
double kl_div_group(Group& group, const KlDivProblem& p) {
  const V rate = set(1.44269504f / p.temperature), weight = group.weight();
  const Tops tops = group.tops();
  M counts = differ(weight, set(0.0f));
  if (any(either(equal(tops.student, set(kLowest)), equal(tops.teacher, set(kLowest))))) {
    float voids[kWidth];
    for (int i = 0; i < kWidth; ++i) voids[i] = lane(counts, i) && group.is_void(i) ? 0.0f : 1.0f;
    counts = both(counts, differ(load(voids), set(0.0f)));
  }
  const Outcome outcome = kl_outcome(group.sums(rate), counts, weight, p);
  if (p.gradient != nullptr) group.write_gradient(outcome, rate);
  return group.deliver(outcome.value);
}

template <typename T>
double kl_div_short_rows(const KlDivProblem& p, int64_t begin, int64_t end) {
  float staged[2 * kShort * kWidth];
  double total = 0;
  for (int64_t row = begin; row < end; row += kWidth) {
    ShortRowGroup<T> group(p, row, static_cast<int>(std::min<int64_t>(kWidth, end - row)), staged);
    total += kl_div_group(group, p);
  }
  return total;
}

template <typename T>
double kl_div_rows(const KlDivProblem& p, int64_t begin, int64_t end) {
  if (p.classes <= kShort) return kl_div_short_rows<T>(p, begin, end);
  const int64_t together = std::clamp<int64_t>(kKept / 8 / p.classes, 1, kWidth);
  const bool keep = p.gradient != nullptr && p.classes <= kKept;
  std::vector<float> buffer(keep ? 2 * together * (p.classes + kWidth) : 0);
  double total = 0;
  for (int64_t row = begin; row < end; row += together) {
    const int count = static_cast<int>(std::min(together, end - row));
    RowGroup<T> group(p, row, count, keep ? buffer.data() : nullptr);
    total += kl_div_group(group, p);
  }
  return total;
}

template <typename T>
double kl_div_columns(const KlDivProblem& p, int64_t begin, int64_t end) {
  const int64_t groups = std::min<int64_t>(kKept / (p.classes * kWidth), kTile);
  std::vector<float> buffer(2 * groups * p.classes * kWidth);
  double total = 0;
  for (int64_t position = begin; position < end;) {
    const int64_t first = position % p.inner;
    Offsets at = offsets(p.outer, position / p.inner);
    at.student += first;
    at.teacher += first;
    at.gradient += first;
    at.weight += first * p.weight_inner;
    at.loss += first * p.loss_inner;
    const int64_t count = std::min({std::max<int64_t>(groups, 1) * kWidth, p.inner - first, end - position});
    ColumnTile<T> tile{p, at, count, groups > 0 ? buffer.data() : nullptr, {}, {}};
    tile.stage();
    for (int g = 0; g * kWidth < count; ++g) {
      ColumnGroup<T> group(tile, g);
      total += kl_div_group(group, p);
    }
    position += count;
  }
  return total;
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
