// Positions of detkd::kl_div are worked on in groups of kWidth, one a lane, so that what happens once a position
// (logarithm, division) is vectorised too. Between the passes over its classes e_t and d wait in a scratch buffer; a group
// whose buffer would leave the caches computes them twice.
#pragma once

#include "kl_div_terms.h"

namespace detkd::DETKD_ISA {

constexpr int64_t kKept = 40960;  // logits of a group whose e_t and d are kept: 320 KiB

struct Outcome {
  V value, rho, factor;  // gradient = factor * (d - rho * e_t)
  M counts;              // others (weight 0, or no finite logit) have value and gradient 0
};

inline Outcome kl_outcome(const Sums& sums, M counts, V weight, const KlDivProblem& p) {
  const V per_t = set(1.0f) / sums.e_t, rho = sums.d * per_t;
  // The maximum of 0 and NaN is NaN.
  const V divergence = max(set(0.0f), log1p(rho) - sums.y * per_t * set(1.0f / p.temperature));
  const V value = divergence * set(p.temperature * p.temperature) * weight;
  const V factor = set(p.temperature * p.gradient_scale) / (sums.e_t + sums.d) * weight;
  return {select(counts, value, set(0.0f)), rho, factor, counts};
}

template <typename T>
bool has_nan(const T* at, int64_t n, int64_t stride) {
  for (int64_t c = 0; c < n; ++c) {
    const V x = load(at + c * stride, 1, 0.0f);
    if (lane(unordered(x, x), 0)) return true;
  }
  return false;
}

template <typename Group>
double kl_div_group(Group& group, const KlDivProblem& p) {
  const Rate rate(1.44269504f / p.temperature);
  const V weight = group.weight();
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

// Sum of the first `count` lanes; each goes to p.loss[place(lane)] where the loss is not reduced.
template <typename Place>
double deliver(V value, int count, const KlDivProblem& p, const Place& place) {
  float values[kWidth];
  store(values, value);
  double total = 0;
  for (int i = 0; i < count; ++i) {
    total += values[i];
    if (!p.reduced) p.loss[place(i)] = values[i];
  }
  return total;
}

template <typename T>
bool past_caches(const KlDivProblem& p) {
  return p.outer.count * p.inner * p.classes * static_cast<int64_t>(sizeof(T)) > kCaches;
}

}  // namespace detkd::DETKD_ISA
