// Strided classes of detkd::kl_div on vectors: positions along inner are neighbours, kWidth of them make a group.
#pragma once

#include "kl_div_terms.h"

namespace detkd::DETKD_ISA {

// Up to kTile groups of neighbouring positions, brought together into a buffer: [group][class][student, teacher][lane].
// Classes often lie a power of two apart, where all of them fall on the same few lines of the caches and would be fetched
// again by every pass.
constexpr int kTile = 4;

template <typename T>
struct ColumnTile {
  const KlDivProblem& p;
  Offsets at;      // of the first position's first class
  int64_t count;   // positions
  float* staged;   // null where the buffer would be too large
  V top_s[kTile], top_t[kTile];

  const T* student(int64_t c) const { return static_cast<const T*>(p.student) + at.student + c * p.student_stride; }
  const T* teacher(int64_t c) const { return static_cast<const T*>(p.teacher) + at.teacher + c * p.teacher_stride; }
  float* staged_at(int group, int64_t c) const { return staged + (group * p.classes + c) * 2 * kWidth; }

  void stage() {
    for (int g = 0; g < kTile; ++g) top_s[g] = top_t[g] = set(kLowest);
    for (int64_t c = 0; c < p.classes; ++c) {
      for (int g = 0; g * kWidth < count; ++g) {
        const V s = fetch(student(c), g), t = fetch(teacher(c), g);
        top_s[g] = max(s, top_s[g]);
        top_t[g] = max(t, top_t[g]);
        if (staged == nullptr) continue;
        store(staged_at(g, c), s);
        store(staged_at(g, c) + kWidth, t);
      }
    }
  }

  // Lanes past the last position hold 0 twice, which is a loss of 0.
  V fetch(const T* from, int group) const {
    return load_part(from + group * kWidth, std::min<int64_t>(kWidth, count - group * kWidth), 0.0f);
  }
};

template <typename T>
class ColumnGroup {
 public:
  ColumnGroup(const ColumnTile<T>& tile, int group)
      : p(tile.p),
        tile(tile),
        group(group),
        count(static_cast<int>(std::min<int64_t>(kWidth, tile.count - group * kWidth))),
        // A part of a cache line alone costs more than it saves.
        past_caches(kWidth * sizeof(T) == 64 && count == kWidth && streams_logits<T>(p, p.gradient_stride)),
        top{tile.top_s[group], tile.top_t[group], tile.top_s[group] - tile.top_t[group]} {
    for (int i = 0; i < count; ++i) {
      weights[i] = p.weight == nullptr ? 1.0f : p.weight[tile.at.weight + (group * kWidth + i) * p.weight_inner];
    }
  }

  V weight() const { return load(weights); }
  const Tops& tops() const { return top; }

  bool is_void(int i) const {
    const auto lowest = [&](V tops, const T* from, int64_t stride) {
      return lane(equal(tops, set(kLowest)), i) && !has_nan(from + group * kWidth + i, p.classes, stride);
    };
    return lowest(top.student, tile.student(0), p.student_stride) ||
           lowest(top.teacher, tile.teacher(0), p.teacher_stride);
  }

  Sums sums(V rate) const {
    Sums all = Sums::zero();
    for (int64_t begin = 0; begin < p.classes; begin += kBlock) {
      // Summed in blocks: thousands of classes in one lane would lose digits to a single running sum.
      const int64_t end = std::min(begin + kBlock, p.classes);
      const Sums block = tile.staged == nullptr ? sums_of_block(begin, end, rate) : sums_of_staged(begin, end, rate);
      all.e_t = all.e_t + block.e_t;
      all.d = all.d + block.d;
      all.y = all.y + block.y;
      all.nan = either(all.nan, block.nan);
    }
    return all;
  }

  void write_gradient(const Outcome& outcome, V rate) const {
    for (int64_t c = 0; c < p.classes; ++c) {
      V slope;
      if (tile.staged != nullptr) {
        const float* kept = tile.staged_at(group, c);
        slope = kl_slope(load(kept), load(kept + kWidth), outcome.rho, outcome.factor);
      } else {
        const Terms term = kl_terms(tile.fetch(tile.student(c), group), tile.fetch(tile.teacher(c), group), top, rate);
        slope = kl_slope(term.e_t, term.d, outcome.rho, outcome.factor);
      }
      T* to = static_cast<T*>(p.gradient) + tile.at.gradient + c * p.gradient_stride + group * kWidth;
      put(to, slope, count, past_caches);
    }
  }

  double deliver(V value) const {
    return DETKD_ISA::deliver(value, count, p, [&](int i) { return tile.at.loss + (group * kWidth + i) * p.loss_inner; });
  }

 private:
  static constexpr int64_t kBlock = 64;

  Sums sums_of_block(int64_t begin, int64_t end, V rate) const {
    Sums sums = Sums::zero();
    for (int64_t c = begin; c < end; ++c) {
      sums.add(kl_terms(tile.fetch(tile.student(c), group), tile.fetch(tile.teacher(c), group), top, rate));
    }
    return sums;
  }

  // e_t and d take the logits' place.
  Sums sums_of_staged(int64_t begin, int64_t end, V rate) const {
    Sums sums = Sums::zero();
    for (int64_t c = begin; c < end; ++c) {
      float* kept = tile.staged_at(group, c);
      const Terms term = kl_terms(load(kept), load(kept + kWidth), top, rate);
      sums.add(term);
      store(kept, term.e_t);
      store(kept + kWidth, term.d);
    }
    return sums;
  }

  const KlDivProblem& p;
  const ColumnTile<T>& tile;
  int group, count;
  bool past_caches;
  Tops top;
  float weights[kWidth] = {};
};

}  // namespace detkd::DETKD_ISA
