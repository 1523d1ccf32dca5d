// The CPU kernels for AVX2 with FMA.
#include "kernels.h"

#if defined(__x86_64__)
#include "simd/target.h"

DETKD_TARGET_BEGIN("avx2,fma,f16c")
#define DETKD_ISA avx2
#include "simd/avx2.h"

#include "kernels/all.h"
DETKD_TARGET_END

const detkd::Kernels* detkd::avx2_kernels() {
  const bool runs = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  static const Kernels table = avx2::table("avx2");
  return runs ? &table : nullptr;
}
#else
const detkd::Kernels* detkd::avx2_kernels() { return nullptr; }
#endif
