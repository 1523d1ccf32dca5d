// 16-bit floating-point storage types of the CPU kernels. Arithmetic on them is float32's, see the simd/ headers.
#pragma once

#include <cstdint>

namespace detkd {

struct Half {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

}  // namespace detkd
