// The CPU kernels of one instruction set, as functions over a range of work units; cpu/<set>.cpp makes one table each.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "../ops/problem.h"
#include "simd/types.h"

namespace detkd {

constexpr int64_t kWidest = 16;        // float32 lanes of the widest vector
constexpr int64_t kLine = 64;          // bytes of a line of the caches
constexpr int64_t kCaches = 8 << 20;  // bytes; results above it are written past the caches

// Room for so many values, aligned to a line of the caches. It stays with the thread, so that it is neither cleared nor
// mapped anew for each piece of work; the next call may move it.
float* scratch(int64_t values);

// Sums of |f| of one image: by position over channels, by channel over a piece of the positions.
struct FocalSums {
  double *student_positions, *teacher_positions, *student_channels, *teacher_channels;
};

// Of one image: what multiplies a squared error, and the attention loss's slopes.
struct FocalWeights {
  const float *positions, *channels, *position_slopes, *channel_slopes;
};

struct Kernels {
  const char* name;
  // Work on positions, logits or channels [begin, end); return the unscaled sum of their values.
  double (*kl_div)(const KlDivProblem&, int64_t begin, int64_t end);
  double (*binary_kl)(const BinaryKlProblem&, int64_t begin, int64_t end);
  double (*standardized_mse)(const StandardizedMseProblem&, int64_t begin, int64_t end);
  // Work on positions [begin, end) of one image.
  void (*attention_maps)(const AttentionTransferProblem&, int64_t image, int64_t begin, int64_t end, double* student,
                         double* teacher);
  void (*attention_slopes)(const AttentionTransferProblem&, int64_t image, int64_t begin, int64_t end, const float*);
  void (*focal_sums)(const AttentionMseProblem&, int64_t image, int64_t begin, int64_t end, const FocalSums&);
  double (*focal_errors)(const AttentionMseProblem&, int64_t image, int64_t begin, int64_t end, const FocalWeights&);
  void (*scaled_softmax)(const double* values, int64_t n, double temperature, float* out);
};

const Kernels* avx512_kernels();  // null where this build or this processor has none
const Kernels* avx2_kernels();
const Kernels* portable_kernels();

// The widest that this processor runs; DETKD_CPU=avx512|avx2|portable holds it down.
const Kernels& kernels();

}  // namespace detkd
