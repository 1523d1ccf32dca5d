// The CPU kernels for AVX-512.
#include "kernels.h"

#if defined(__x86_64__)
#include "simd/target.h"

DETKD_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#define DETKD_ISA avx512
#include "simd/avx512.h"

#include "kernels/all.h"
DETKD_TARGET_END

const detkd::Kernels* detkd::avx512_kernels() {
  const bool runs = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  static const Kernels table = avx512::table("avx512");
  return runs ? &table : nullptr;
}
#else
const detkd::Kernels* detkd::avx512_kernels() { return nullptr; }
#endif
