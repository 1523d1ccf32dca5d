// Stands in for CUDA's header of this name, see cuda_runtime_api.h.
#pragma once

#include "../../cpu/simd/portable.h"
#include "cuda_runtime_api.h"

using __half = detkd::Half;

inline float __half2float(__half x) { return detkd::portable::widen(x); }
inline __half __float2half_rn(float x) {
  __half y;
  detkd::portable::narrow(x, y);
  return y;
}
