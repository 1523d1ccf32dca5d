// detkd::kl_div on vectors, in namespace detkd::DETKD_ISA; see ops/problem.h for what it computes.
//
// e_t and e_s are the teacher's and the student's exponentials below their maxima. Loss and gradient need their
// difference d = e_s - e_t; it is taken from y = log2(e_s / e_t) without cancellation, so that a student that nearly
// equals its teacher keeps full accuracy: with rho = sum d / sum e_t = (sum e_s) / (sum e_t) - 1,
//
//   loss     = T^2 (log1p(rho) - ln 2 * sum e_t y / sum e_t)
//   gradient = T (d - rho e_t) / sum e_s
//
// Positions are worked on in groups of kWidth, one a lane, so that what happens once a position (logarithm, division) is
// vectorised too. Between the passes over its classes e_t and d wait in a scratch buffer; a group whose buffer would
// leave the caches computes them twice.
#pragma once

namespace detkd::DETKD_ISA {

constexpr float kLowest = -std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

constexpr int64_t kKept = 40960;  // logits of a group whose e_t and d are kept: 320 KiB

struct Tops {  // maxima of the logits, of one position in all lanes or of one in each
  V student, teacher, difference;
};

struct Terms {
  V e_t, d, y;
  M nan;
};

inline Terms kl_terms(V s, V t, const Tops& top, V rate) {
  const V below_s = s - top.student, below_t = t - top.teacher;
  Terms out;
  out.nan = unordered(below_s, below_t);
  out.y = ((s - t) - top.difference) * rate;
  const V high = exp2(max(below_s, below_t) * rate);
  const V gap = high * one_minus_exp2(negative(abs(out.y)));
  out.d = with_sign_of(gap, out.y);
  out.e_t = subtract_where(less(set(0.0f), out.y), high, gap);
  return out;
}

inline V kl_slope(V e_t, V d, V rho, V factor) { return (d - rho * e_t) * factor; }

struct Sums {
  V e_t, d, y;
  M nan;

  static Sums zero() { return {set(0.0f), set(0.0f), set(0.0f), none()}; }

  void add(const Terms& term) {
    e_t = e_t + term.e_t;
    d = d + term.d;
    y = fma_where(less(set(0.0f), term.e_t), term.e_t, term.y, y);  // p_t = 0 counts 0, also where s is -inf
    nan = either(nan, term.nan);
  }
};

struct Outcome {
  V value, rho, factor;  // gradient = factor * (d - rho * e_t)
};

// A lane that does not count (weight 0, or no finite logit) has value and gradient 0.
inline Outcome kl_outcome(const Sums& sums, M counts, V weight, const KlDivProblem& p) {
  const V zero = set(0.0f), per_t = set(1.0f) / sums.e_t;
  const V rho = sums.d * per_t;
  const V value = max(log1p(rho) - set(0.693147181f) * sums.y * per_t, zero) * set(p.temperature * p.temperature);
  const V factor = set(p.temperature * p.gradient_scale) / (sums.e_t + sums.d);
  Outcome out;
  out.value = select(counts, select(sums.nan, set(kNan), value * weight), zero);
  out.rho = select(counts, rho, zero);
  out.factor = select(counts, select(sums.nan, set(kNan), factor * weight), zero);
  return out;
}

template <typename T>
bool has_nan(const T* at, int64_t n, int64_t stride) {
  for (int64_t c = 0; c < n; ++c) {
    const V x = load(at + c * stride, 1, 0.0f);
    if (lane(unordered(x, x), 0)) return true;
  }
  return false;
}

// Whether to write the gradient past the caches: where it is larger than they are, and whole vectors lie aligned in it.
template <typename T>
bool streams(const KlDivProblem& p, int64_t run) {
  constexpr int64_t kBytes = kWidth * sizeof(T);
  if (sizeof(T) != sizeof(float)) return false;  // narrow stores past the caches write lines in pieces
  bool aligned = reinterpret_cast<uintptr_t>(p.gradient) % kBytes == 0 && run % kWidth == 0;
  for (int d = 0; d < p.outer.ndim; ++d) aligned = aligned && p.outer.gradient[d] % kWidth == 0;
  const int64_t size = p.outer.count * p.inner * p.classes * static_cast<int64_t>(sizeof(T));
  return aligned && size > kCaches;
}

// ---- Rows: the classes of a position are neighbours, kWidth rows make a group.

template <typename T>
class RowGroup {
 public:
  RowGroup(const KlDivProblem& problem, int64_t first, int count, float* scratch)
      : p(problem), count(count), ahead(count * p.classes), past_caches(streams<T>(p, p.classes)) {
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
    float values[kWidth];
    store(values, value);
    double total = 0;
    for (int r = 0; r < count; ++r) {
      total += values[r];
      if (!p.reduced) p.loss[losses[r]] = values[r];
    }
    return total;
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
      past_caches ? stream(gradient[r] + c, x) : store(gradient[r] + c, x);
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

// ---- Columns: positions along inner are neighbours, kWidth of them make a group.

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
    const int64_t left = count - group * kWidth;
    return left >= kWidth ? load(from + group * kWidth) : load(from + group * kWidth, left, 0.0f);
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
        past_caches(kWidth * sizeof(T) == 64 && count == kWidth && streams<T>(p, p.gradient_stride)),
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
      if (past_caches) {
        stream(to, slope);
      } else {
        count == kWidth ? store(to, slope) : store(to, slope, count);
      }
    }
  }

  double deliver(V value) const {
    float values[kWidth];
    store(values, value);
    double total = 0;
    for (int i = 0; i < count; ++i) {
      total += values[i];
      if (!p.reduced) p.loss[tile.at.loss + (group * kWidth + i) * p.loss_inner] = values[i];
    }
    return total;
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

// ---- Short rows: kWidth rows are transposed into columns on the way in and back on the way out, so that every lane has
// work; a row of 21 classes would leave a third of its vectors empty.

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
        n == kWidth ? store(to, block[r]) : store(to, block[r], n);
      }
    }
  }

  double deliver(V value) const {
    float values[kWidth];
    store(values, value);
    double total = 0;
    for (int r = 0; r < count; ++r) {
      total += values[r];
      if (!p.reduced) p.loss[at[r].loss] = values[r];
    }
    return total;
  }

 private:
  const T* student(int r) const { return static_cast<const T*>(p.student) + at[r].student; }
  const T* teacher(int r) const { return static_cast<const T*>(p.teacher) + at[r].teacher; }

  // Rows past the last hold 0 twice, which is a loss of 0.
  V fetch(const T* from, int64_t offset, int r, int64_t c) const {
    if (r >= count) return set(0.0f);
    const T* row = from + offset + c;
    return p.classes - c >= kWidth ? load(row) : load(row, p.classes - c, 0.0f);
  }

  const KlDivProblem& p;
  int count;
  float* staged;  // [class][student and teacher, then e_t and d][row]
  Offsets at[kWidth];
  Tops top;
  float weights[kWidth] = {};
};

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
  switch (p.type) {
    case ScalarType::kHalf:
      return kl_div_positions<Half>(p, begin, end);
    case ScalarType::kBFloat16:
      return kl_div_positions<BFloat16>(p, begin, end);
    default:
      return kl_div_positions<float>(p, begin, end);
  }
}

}  // namespace detkd::DETKD_ISA
