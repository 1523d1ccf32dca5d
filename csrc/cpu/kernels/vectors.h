// Loops, partial vectors, sums and stores that all kernels share, in namespace detkd::DETKD_ISA.
#pragma once

#include "../kernels.h"

namespace detkd::DETKD_ISA {

struct Sum {
  static V apply(V a, V b) { return a + b; }
};
struct Max {
  static V apply(V a, V b) { return max(a, b); }
};

inline double lane_sum(V x) {
  float lanes[kWidth];
  store(lanes, x);
  double sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}

inline double lane_sum(const Wide& x) {
  double lanes[kWidth], sum = 0;
  x.store(lanes);
  for (const double lane : lanes) sum += lane;
  return sum;
}

// Calls body(begin, n) for the vectors of [begin, end), n lanes each.
template <typename Body>
inline void for_vectors(int64_t begin, int64_t end, const Body& body) {
  int64_t i = begin;
  for (; i + kWidth <= end; i += kWidth) body(i, static_cast<int64_t>(kWidth));
  if (i < end) body(i, end - i);
}

template <typename T>
inline V load_part(const T* at, int64_t n, float fill) {
  return n == kWidth ? load(at) : load(at, n, fill);
}
template <typename T>
inline void store_part(T* at, V x, int64_t n) {
  n == kWidth ? store(at, x) : store(at, x, n);
}

// Two vectors, in whatever order is cheapest for their type: as store_two will write them.
template <typename T>
inline void load_two(const T* at, V* x) {
  x[0] = load(at);
  x[1] = load(at + kWidth);
}
template <typename T>
inline void store_two(T* at, const V* x) {
  store(at, x[0]);
  store(at + kWidth, x[1]);
}

// Whether to write a gradient of so many values past the caches: where it is larger than they are and begins with a whole
// vector. Its rows must do so too, which the caller knows. Narrow stores past the caches would write lines in pieces.
template <typename T>
bool streams(const void* gradient, int64_t values) {
  return sizeof(T) == sizeof(float) && values * static_cast<int64_t>(sizeof(T)) > kCaches &&
         reinterpret_cast<uintptr_t>(gradient) % (kWidth * sizeof(T)) == 0;
}

template <typename T>
inline void put(T* at, V x, int64_t n, bool past_caches) {
  past_caches ? stream(at, x) : store_part(at, x, n);
}

// A large result past the caches; the parts of lines at its ends go through them.
inline void copy_past_caches(void* to, const void* from, int64_t bytes) {
  constexpr int64_t kVector = sizeof(V);
  char* out = static_cast<char*>(to);
  const char* in = static_cast<const char*>(from);
  const auto copy = [&](int64_t n) {
    std::memcpy(out, in, n);
    out += n;
    in += n;
    bytes -= n;
  };
  if (const int64_t head = -reinterpret_cast<uintptr_t>(to) % kLine; head > 0) copy(std::min(head, bytes));
  for (; bytes >= kLine; bytes -= kLine) {
    for (int64_t i = 0; i < kLine; i += kVector) {
      stream(reinterpret_cast<float*>(out + i), load(reinterpret_cast<const float*>(in + i)));
    }
    out += kLine;
    in += kLine;
  }
  if (bytes > 0) copy(bytes);
}

}  // namespace detkd::DETKD_ISA
