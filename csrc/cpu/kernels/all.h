// Every kernel of one instruction set, and their table.
#pragma once

#include "exponentials.h"
#include "vectors.h"

#include "attention_mse.h"
#include "attention_transfer.h"
#include "binary_kl.h"
#include "kl_div.h"
#include "standardized_mse.h"

namespace detkd::DETKD_ISA {

inline Kernels table(const char* name) {
  return {name,          &kl_div,           &binary_kl,  &standardized_mse, &attention_maps,
          &attention_slopes, &focal_sums, &focal_errors, &scaled_softmax};
}

}  // namespace detkd::DETKD_ISA
