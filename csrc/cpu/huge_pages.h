// Fresh memory in large pages.
#pragma once

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "../ops/problem.h"

namespace detkd {

// A block of this size comes from the kernel anew each time it is allocated, in pages of 4 KiB that are cleared one fault
// at a time: for a large gradient that takes several times longer than to compute it. Asks for pages of 2 MiB instead.
inline void prefer_huge_pages(void* block, int64_t bytes) {
#if defined(__linux__)
  constexpr int64_t kAlwaysFresh = 32 << 20;  // the highest threshold from which glibc maps a block of its own
  constexpr uintptr_t kPage = 2 << 20;
  if (block == nullptr || bytes < kAlwaysFresh) return;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(block) + kPage - 1) / kPage * kPage;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(block) + bytes) / kPage * kPage;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // advice: where it fails, nothing is lost
#endif
}

inline void prefer_huge_pages(const FeatureMaps& maps) {
  prefer_huge_pages(maps.gradient, maps.batch * maps.channels * maps.positions * bytes_of(maps.type));
}

}  // namespace detkd
