// Stands in for CUDA's header of this name, see cuda_runtime_api.h.
#pragma once

#include "../../cpu/simd/portable.h"
#include "cuda_runtime_api.h"

using __nv_bfloat16 = detkd::BFloat16;

inline float __bfloat162float(__nv_bfloat16 x) { return detkd::portable::widen(x); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
  __nv_bfloat16 y;
  detkd::portable::narrow(x, y);
  return y;
}
