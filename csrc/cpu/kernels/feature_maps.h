// What the kernels on feature maps share, in namespace detkd::DETKD_ISA.
#pragma once

namespace detkd::DETKD_ISA {

constexpr int64_t kAhead = 8;         // channels fetched ahead: a walk along channels is not foreseen by the processor
constexpr int64_t kPlanePart = 2048;  // elements summed in float32, then in float64

inline double lane_sum(V x) {
  float lanes[kWidth];
  store(lanes, x);
  double sum = 0;
  for (const float lane : lanes) sum += lane;
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

template <typename T>
inline const T* student_plane(const FeatureMaps& maps, int64_t image, int64_t channel) {
  return static_cast<const T*>(maps.student) + image * maps.student_batch + channel * maps.student_channel;
}
template <typename T>
inline const T* teacher_plane(const FeatureMaps& maps, int64_t image, int64_t channel) {
  return static_cast<const T*>(maps.teacher) + image * maps.teacher_batch + channel * maps.teacher_channel;
}
template <typename T>
inline T* gradient_plane(const FeatureMaps& maps, int64_t image, int64_t channel) {
  return static_cast<T*>(maps.gradient) + (image * maps.channels + channel) * maps.positions;
}

// Whether to write the gradient past the caches: where it is larger than they are, and whole vectors lie aligned in it.
template <typename T>
bool streams_maps(const FeatureMaps& maps, int64_t begin) {
  const int64_t bytes = maps.batch * maps.channels * maps.positions * static_cast<int64_t>(sizeof(T));
  return sizeof(T) == sizeof(float) && bytes > kCaches && maps.positions % kWidth == 0 && begin % kWidth == 0 &&
         reinterpret_cast<uintptr_t>(maps.gradient) % (kWidth * sizeof(T)) == 0;
}

template <typename T>
inline void put(T* at, V x, int64_t n, bool past_caches) {
  past_caches ? stream(at, x) : store_part(at, x, n);
}

}  // namespace detkd::DETKD_ISA
