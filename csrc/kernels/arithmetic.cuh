// Functions of one number that are accurate where the kernels need it and no dearer than that.
#pragma once

#include <cmath>

#include "device.cuh"

namespace detkd {

constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

__device__ inline float infinity() { return __int_as_float(0x7f800000); }
__device__ inline float not_a_number() { return __int_as_float(0x7fc00000); }

// CUDA C++ has no names for these two instructions: the larger number, or NaN where one is NaN; and 2^x to two units in
// the last place without exp2f's care for results below 2^-126, which are 0 here.
__device__ inline float max_or_nan(float a, float b) {
#ifdef __CUDA_ARCH__
  float c;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(c) : "f"(a), "f"(b));
  return c;
#else
  return a > b || std::isnan(a) ? a : b;
#endif
}
__device__ inline float power_of_two(float x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return x < -126.0f ? 0.0f : std::exp2(x);
#endif
}

struct Power {
  float power, complement;  // 2^-u and 1 - 2^-u
};

// Both to 5e-7 of themselves for u >= 0, however small the complement; 0 and 1 for infinite u and for NaN.
__device__ inline Power power_below_one(float u) {
  u = fminf(u, 200.0f);
  const float far = power_of_two(-u);
  float near = fmaf(fmaf(0.00115445233f, u, -0.00954128150f), u, 0.0554904081f);  // minimax on [0, 1/2]
  near = fmaf(fmaf(near, u, -0.240225643f), u, 0.693147182f) * u;
  return u < 0.5f ? Power{1.0f - near, near} : Power{far, 1.0f - far};
}

// A sum that keeps what rounding takes from it (Kahan 1965): as good as float64's here, where float64 is up to 64 times
// slower than float32 on a consumer's GPU.
struct CompensatedSum {
  float sum = 0.0f, excess = 0.0f;

  __device__ void add(float x) {
    const float rest = x - excess, next = sum + rest;
    excess = fabsf(next) < infinity() ? (next - sum) - rest : 0.0f;
    sum = next;
  }
  __device__ double total() const { return static_cast<double>(sum) - excess; }
};

}  // namespace detkd
