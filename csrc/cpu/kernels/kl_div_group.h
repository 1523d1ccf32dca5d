// Positions of detkd::kl_div are worked on in groups of kWidth, one a lane, so that what happens once a position
// (logarithm, division) is vectorised too. Between the passes over its classes e_t and d wait in a scratch buffer; a group
// whose buffer would leave the caches computes them twice.
#pragma once

#include "kl_div_terms.h"

namespace detkd::DETKD_ISA {

constexpr int64_t kKept = 40960;  // logits of a group whose e_t and d are kept: 320 KiB

// Where the tensors stand at one index of the outer dimensions after the other: a division each would cost short rows dear.
class Walk {
 public:
  Walk(const Outer& outer, int64_t first) : outer(outer), index(first), last(std::max(outer.ndim - 1, 0)) { place(); }

  const Offsets& operator*() const { return at; }
  int dimension() const { return last; }   // along which it goes
  int64_t ahead() const { return left; }   // indices until its end, this one included

  void operator++() {
    ++index;
    if (--left <= 0) return place();
    at.student += outer.student[last];
    at.teacher += outer.teacher[last];
    at.gradient += outer.gradient[last];
    at.weight += outer.weight[last];
    at.mask += outer.mask[last];
    at.loss += outer.loss[last];
  }

 private:
  void place() {
    at = offsets(outer, index);
    left = last == 0 ? outer.count - index : outer.size[last] - index % outer.size[last];
  }

  const Outer& outer;
  Offsets at;
  int64_t index, left = 0;
  int last;
};

struct Outcome {
  V value, rho, factor;  // gradient = factor * (d - rho * e_t)
  M counts;              // others (weight 0, or no finite logit) have value and gradient 0
  M peaked;              // of these d is e_s, and rho is S_s / S_t: the difference of two probabilities
};

// Whether the student's sum is so much smaller than the teacher's that it has lost digits as their difference. It is summed
// anew then; and as such a student is far from its teacher, the difference of their probabilities loses nothing.
inline M is_peaked(const Sums& sums) { return less((sums.e_t + sums.d) * set(8.0f), sums.e_t); }

inline Outcome kl_outcome(const Sums& sums, V sum_s, M peaked, M counts, V weight, const KlDivProblem& p) {
  const V per_t = set(1.0f) / sums.e_t, per_s = set(1.0f) / sum_s;
  const V log_ratio = with_sign_of(log1p(abs(sums.d) * max(per_s, per_t)), sums.d);
  // The maximum of 0 and NaN is NaN.
  const V divergence = max(set(0.0f), log_ratio - sums.y * per_t * set(1.0f / p.temperature));
  const V value = divergence * set(p.temperature * p.temperature) * weight;
  const V factor = set(p.temperature * p.gradient_scale) * per_s * weight;
  return {select(counts, value, set(0.0f)), select(peaked, sum_s, sums.d) * per_t, factor, counts, peaked};
}

template <typename T>
bool has_nan(const T* at, int64_t n, int64_t stride) {
  for (int64_t c = 0; c < n; ++c) {
    const V x = load(at + c * stride, 1, 0.0f);
    if (lane(unordered(x, x), 0)) return true;
  }
  return false;
}

inline Rate rate_of(const KlDivProblem& p) { return Rate(1.44269504f / p.temperature); }

// Adds the values of the group's positions to `total`.
template <typename Group>
void kl_div_group(Group& group, const KlDivProblem& p, Wide& total) {
  const Rate rate = rate_of(p);
  const V weight = group.weight();  // 0 past the last position
  const Tops tops = group.tops(rate);
  M counts = differ(weight, set(0.0f));
  if (any(either(equal(tops.student, set(kLowest)), equal(tops.teacher, set(kLowest))))) {
    float voids[kWidth];
    for (int i = 0; i < kWidth; ++i) voids[i] = lane(counts, i) && group.is_void(i) ? 0.0f : 1.0f;
    counts = both(counts, differ(load(voids), set(0.0f)));
  }
  Sums sums = group.sums(rate);
  const M wild = both(counts, either(tops.are_apart(rate), sums.are_infinite()));
  if (any(wild)) sums = Sums::select(wild, group.wild_sums(wild, rate), sums);
  const M peaked = both(counts, is_peaked(sums));
  V sum_s = sums.e_t + sums.d;
  if (any(peaked)) sum_s = select(peaked, group.student_sums(peaked, rate), sum_s);
  const Outcome outcome = kl_outcome(sums, sum_s, peaked, counts, weight, p);
  if (p.gradient != nullptr) group.write_gradient(outcome, rate);
  if (!p.reduced) group.write_losses(outcome.value);
  total.add(outcome.value);
}

inline void scatter(V values, int count, float* to, const int64_t* places) {
  float lanes[kWidth];
  store(lanes, values);
  for (int i = 0; i < count; ++i) to[places[i]] = lanes[i];
}

template <typename T>
bool past_caches(const KlDivProblem& p) {
  return p.outer.count * p.inner * p.classes * static_cast<int64_t>(sizeof(T)) > kCaches;
}

}  // namespace detkd::DETKD_ISA
