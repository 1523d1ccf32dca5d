// What the kernels on feature maps share, in namespace detkd::DETKD_ISA.
#pragma once

#include "vectors.h"

namespace detkd::DETKD_ISA {

constexpr int64_t kAhead = 8;         // channels fetched ahead: a walk along channels is not foreseen by the processor
constexpr int64_t kPlanePart = 2048;  // elements summed in float32, then in float64

// See streams(); positions from `begin` on.
template <typename T>
bool streams_maps(const FeatureMaps& maps, int64_t begin) {
  return streams<T>(maps.gradient, maps.batch * maps.channels * maps.positions) && maps.positions % kWidth == 0 &&
         begin % kWidth == 0;
}

}  // namespace detkd::DETKD_ISA
