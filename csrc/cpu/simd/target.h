// Compiles what stands between the two macros for a wider instruction set than the rest of the library. Headers of the
// standard library are included before, so that no function shared with other files comes out in that instruction set.
#pragma once

#include <immintrin.h>

#define DETKD_PRAGMA(...) _Pragma(#__VA_ARGS__)
#if defined(__clang__)
#define DETKD_TARGET_BEGIN(set) \
  DETKD_PRAGMA(clang attribute push(__attribute__((target(set))), apply_to = function))
#define DETKD_TARGET_END DETKD_PRAGMA(clang attribute pop)
#else
#define DETKD_TARGET_BEGIN(set) DETKD_PRAGMA(GCC push_options) DETKD_PRAGMA(GCC target(set))
#define DETKD_TARGET_END DETKD_PRAGMA(GCC pop_options)
#endif
