// 16-bit floating-point storage types of the CPU kernels. Arithmetic on them is float32's, see the simd/ headers.
#pragma once

#include <cstdint>

// Vectors are passed in registers only where the compiler inlines, and it does not always see that it should.
#define DETKD_INLINE __attribute__((always_inline))

namespace detkd {

struct Half {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

}  // namespace detkd
