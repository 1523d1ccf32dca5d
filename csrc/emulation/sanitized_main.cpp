// Runs every kernel, for the sanitizers and the coverage counters to watch.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "../cpu/simd/portable.h"

extern "C" {
int emulate_kl_div(int, const void*, const void*, void*, const float*, float*, int64_t, int64_t, int64_t, float, float,
                   bool);
int emulate_binary_kl(int, const void*, const void*, void*, const float*, float*, int64_t, int64_t, float, float, bool,
                      float, bool);
int emulate_maps(int, int, const void*, const void*, void*, const float*, float*, int64_t, int64_t, int64_t, int64_t,
                 float, float, float);
int emulate_scale(int, void*, int64_t, const float*);
}

namespace {

constexpr int64_t kOuter = 3, kClasses = 37, kInner = 5, kCount = kOuter * kClasses * kInner;

template <typename T>
std::vector<T> values(float phase) {
  std::vector<T> all(kCount);
  for (int64_t i = 0; i < kCount; ++i) {
    const float x = i == 0 ? NAN : std::sin(static_cast<float>(i) + phase);
    if constexpr (sizeof(T) == 4) {
      all[i] = x;
    } else {
      detkd::portable::narrow(x, all[i]);
    }
  }
  return all;
}

// The number of launches that failed.
template <typename T>
int run(int type) {
  const std::vector<T> student = values<T>(0), teacher = values<T>(1);
  std::vector<T> gradient(kCount);
  std::vector<float> weight(kCount, 0.5f), losses(kCount);
  const void *s = student.data(), *t = teacher.data();
  float *w = weight.data(), *loss = losses.data(), factor = 2, one = 1;
  int failed = 0;
#ifdef DETKD_REAL_THREADS  // each kernel once: hundreds of real threads under a sanitizer take their time
  failed += emulate_kl_div(type, s, t, gradient.data(), w, loss, kOuter, kClasses, kInner, 2, 1, true) != 0;
  failed += emulate_kl_div(type, s, t, gradient.data(), w, loss, kOuter, kClasses, 1, 2, 1, true) != 0;
  failed += emulate_binary_kl(type, s, t, gradient.data(), w, loss, kOuter, kClasses, 2, 1, true, 1, true) != 0;
  failed += emulate_maps(0, type, s, t, gradient.data(), nullptr, loss, 1, 3, 3, kClasses, 2, 0, 1) != 0;
  failed += emulate_maps(1, type, s, t, gradient.data(), w, loss, 1, 3, 3, kClasses, 0.5f, 0.1f, 1) != 0;
  failed += emulate_maps(2, type, s, t, gradient.data(), nullptr, loss, 2, 3, 3, kClasses, 1e-6f, 0, 1) != 0;
  return failed + (emulate_scale(type, gradient.data(), kCount, &factor) != 0);
#endif
  for (const bool reduced : {true, false}) {
    failed += emulate_kl_div(type, s, t, gradient.data(), w, loss, kOuter, kClasses, kInner, 2, 1, reduced) != 0;
    failed += emulate_kl_div(type, s, t, gradient.data(), w, loss, kOuter * kInner, kClasses, 1, 2, 1, reduced) != 0;
    for (const float beta : {0.0f, 1.0f, 2.0f}) {
      for (const bool entropy : {true, false}) {
        failed += emulate_binary_kl(type, s, t, gradient.data(), w, loss, kOuter, kClasses * kInner, 2, beta, entropy, 1,
                                    reduced) != 0;
      }
    }
  }
  failed += emulate_kl_div(type, s, t, nullptr, nullptr, loss, kOuter, kClasses, kInner, 2, 1, true) != 0;
  for (void* room : {static_cast<void*>(gradient.data()), static_cast<void*>(nullptr)}) {
    for (const float p : {1.0f, 2.0f, 3.0f}) {
      failed += emulate_maps(0, type, s, t, room, nullptr, loss, kOuter, kInner, kInner, kClasses, p, 0, 1) != 0;
    }
    failed += emulate_maps(1, type, s, t, room, w, loss, kOuter, kInner, kInner, kClasses, 0.5f, 0.1f, 1) != 0;
    failed += emulate_maps(2, type, s, t, room, nullptr, loss, kOuter, kInner, kInner, kClasses, 1e-6f, 0, 1) != 0;
  }
  failed += emulate_scale(type, gradient.data(), kCount, &factor) != 0;
  failed += emulate_scale(type, gradient.data(), kCount, &one) != 0;
  return failed;
}

}  // namespace

int main() {
#ifdef DETKD_REAL_THREADS
  const int failed = run<float>(0);
#else
  const int failed = run<float>(0) + run<detkd::Half>(1) + run<detkd::BFloat16>(2);
#endif
  std::printf("%d launches failed\n", failed);
  return failed;
}
