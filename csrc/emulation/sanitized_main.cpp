// Runs every kernel and every branch of it, for the coverage counters; on real threads, which take their time, every
// kernel once, for the sanitizers.
#include <cmath>
#include <cstdio>
#include <vector>

#include "../cpu/simd/portable.h"
#include "../kernels/standardized_mse.cuh"
#include "bindings.h"

namespace {

constexpr bool kSanitized =
#ifdef DETKD_REAL_THREADS
    true;
#else
    false;
#endif

int failed = 0;  // launches

void put(float x, float& to) { to = x; }
template <typename Narrow>
void put(float x, Narrow& to) {
  detkd::portable::narrow(x, to);
}

template <typename T>
constexpr int kType = sizeof(T) == 4 ? 0 : std::is_same_v<T, detkd::Half> ? 1 : 2;

// With room for one element more, where nothing aligns.
template <typename T>
struct Tensors {
  explicit Tensors(int64_t count)
      : student(count + 1), teacher(count + 1), gradient(count + 1), weight(count, 0.5f), loss(count) {
    weight[0] = 0;
    for (int64_t i = 0; i <= count; ++i) {
      put(3 * std::sin(static_cast<float>(i)), student[i]);
      put(2 * std::sin(static_cast<float>(3 * i)), teacher[i]);
    }
  }

  std::vector<T> student, teacher, gradient;
  std::vector<float> weight, loss;
};

// [outer, classes, inner] logits; the first positions hold NaN, infinities, nothing finite, and a peak.
template <typename T>
void kl_div(int64_t outer, int64_t classes, int64_t inner) {
  Tensors<T> x(outer * classes * inner);
  const auto fill = [&](std::vector<T>& tensor, int64_t position, int64_t count, float value) {
    if (position >= outer * inner) return;
    T* at = tensor.data() + position / inner * classes * inner + position % inner;
    for (int64_t c = 0; c < count; ++c) put(value, at[c * inner]);
  };
  fill(x.student, 1, 1, NAN);
  fill(x.teacher, 2, 1, NAN);
  fill(x.student, 3, classes, -INFINITY);
  fill(x.teacher, 4, classes, -INFINITY);
  fill(x.student, 5, 1, INFINITY);
  fill(x.student, 6, 1, 50);
  Logits logits{kType<T>, x.student.data(), x.teacher.data(), x.gradient.data(), x.weight.data(), nullptr,
                x.loss.data(), outer, classes * inner, inner, 2, 1, true};
  failed += emulate_kl_div(&logits, classes, inner) != 0;
  if (inner == 1) {
    std::vector<float> mask(outer * classes, 1.0f);
    for (size_t i = 0; i < mask.size(); i += 3) mask[i] = 0;
    logits.mask = mask.data();
    failed += emulate_kl_div(&logits, classes, inner) != 0;
    logits.mask = nullptr;
  }
  if (kSanitized) return;
  logits.reduced = false;
  failed += emulate_kl_div(&logits, classes, inner) != 0;
  logits.weight = nullptr;
  logits.gradient = nullptr;
  failed += emulate_kl_div(&logits, classes, inner) != 0;
}

template <typename T>
void binary_kl(int64_t outer, int64_t inner) {
  Tensors<T> x(outer * inner);
  const float s[] = {1, INFINITY, INFINITY, NAN, 1, 2}, t[] = {1, INFINITY, -INFINITY, 1, NAN, 2};
  for (int i = 0; i < 6; ++i) put(s[i], x.student[i]), put(t[i], x.teacher[i]);
  Logits logits{kType<T>, x.student.data(), x.teacher.data(), x.gradient.data(), x.weight.data(), nullptr,
                x.loss.data(), outer, inner, inner, 2, 1, true};
  failed += emulate_binary_kl(&logits, 1, true) != 0;
  if (kSanitized) return;
  for (const float beta : {0.0f, 1.0f, 1.5f}) failed += emulate_binary_kl(&logits, beta, false) != 0;
  logits.reduced = false;
  logits.weight = nullptr;
  logits.gradient = nullptr;
  failed += emulate_binary_kl(&logits, 0, false) != 0;
}

// The first channels of one student or teacher are constant.
template <typename T>
void maps(int64_t batch, int64_t channels, int64_t positions) {
  Tensors<T> x(batch * channels * positions);
  const int64_t image = channels * positions, unaligned = positions % 8 != 0;
  for (int64_t i = 0; i < positions; ++i) put(0.3f, x.student[unaligned + i]), put(0.3f, x.teacher[unaligned + positions + i]);
  Maps all{kType<T>, x.student.data() + unaligned, x.teacher.data() + unaligned, x.gradient.data() + unaligned,
           x.weight.data(), x.loss.data(), batch, channels, channels, positions, image, positions, image, positions, 1};
  failed += emulate_attention_transfer(&all, 2) != 0;
  failed += emulate_attention_mse(&all, 0.5f, 0.1f) != 0;
  failed += emulate_standardized_mse(&all, 1e-6f) != 0;
  if (kSanitized) return;
  for (const float power : {1.0f, 3.0f}) failed += emulate_attention_transfer(&all, power) != 0;
  failed += emulate_standardized_mse(&all, 10) != 0;
  all.teacher = all.student;
  failed += emulate_attention_mse(&all, 0.5f, 0.1f) != 0;
  const std::vector<T> zeros(x.student.size());
  all.student = zeros.data() + unaligned;
  failed += emulate_attention_transfer(&all, 2) != 0;
  all.weight = nullptr;
  all.gradient = nullptr;
  failed += emulate_attention_transfer(&all, 2) != 0;
  failed += emulate_attention_mse(&all, 0.5f, 0.1f) != 0;
  failed += emulate_standardized_mse(&all, 1e-6f) != 0;
}

template <typename T>
void scale(int64_t count) {
  std::vector<T> gradient(count);
  for (const float factor : {1.0f, 2.0f}) failed += emulate_scale(kType<T>, gradient.data(), count, &factor) != 0;
}

template <typename T>
void run_all() {
  kl_div<T>(3, 16, 1);     // lanes of a warp hold a row
  kl_div<T>(2, 261, 1);    // a block does
  kl_div<T>(2, 2563, 1);   // nobody does
  kl_div<T>(3, 21, 8);     // columns, held
  kl_div<T>(2, 101, 3);    // and not
  binary_kl<T>(3, 37);
  maps<T>(2, 5, 40);
  scale<T>(37);
  if (kSanitized) return;
  for (const int64_t classes : {5, 12, 21, 40, 100, 256, 800, 1000}) kl_div<T>(classes < 99 ? 9 : 2, classes, 1);
  kl_div<T>(1, 20800, 1);
  kl_div<T>(3, 321, 1);
  for (const int64_t classes : {8, 16, 80}) kl_div<T>(4, classes, 16);
  kl_div<T>(4, 300, 16);
  kl_div<T>(1, 8, 5);
  binary_kl<T>(4, 16);
  binary_kl<T>(1, 2001);
  maps<T>(2, 5, 35);
  maps<T>(1, 33, 80);
  maps<T>(1, 2, 1601);
}

// What no tensor that fits memory here reaches, and what rounding alone decides.
int wrong_functions() {
  const detkd::Division far = detkd::divide((int64_t{3} << 40) + 5, int64_t{1} << 40);
  return (far.quotient != 3 || far.remainder != 5) + (detkd::not_negative(-1e-30) != 0);
}

}  // namespace

int main() {
  run_all<float>();
  if (!kSanitized) {
    run_all<detkd::Half>();
    run_all<detkd::BFloat16>();
  }
  failed += wrong_functions();
  std::printf("%d failed\n", failed);
  return failed;
}
