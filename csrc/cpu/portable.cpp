// The CPU kernels for any processor.
#include "kernels.h"

#define DETKD_ISA portable
#include "simd/portable.h"

#include "kernels/all.h"

const detkd::Kernels* detkd::portable_kernels() {
  static const Kernels table = portable::table("portable");
  return &table;
}
