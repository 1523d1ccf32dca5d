#include "../kernels/kl_div_rows.cuh"

#include "kl_div.h"

namespace detkd {
namespace {

constexpr int kMostHeld = 32;  // logits of each tensor that a thread holds: 64 registers

bool mask_aligns(const KlDivProblem& p) {
  int64_t strides = 0;
  for (int d = 0; d < p.outer.ndim; ++d) strides |= p.outer.mask[d];
  return whole_vectors(address(p.mask), strides * static_cast<int64_t>(sizeof(float)));
}

bool row_vectors_align(const KlDivProblem& p) {
  return vectors_align(p) && whole_vectors(p.classes * bytes_of(p.type)) && mask_aligns(p);
}

// How a row is held: `vectors` by each thread of a team of `lanes` of a warp, or of a block of `lanes` where those are
// more.
struct RowPlan {
  int vectors = 0, lanes = 0;  // 0: not at all, but read twice by a block

  int64_t blocks(int64_t rows) const { return lanes == 0 || lanes > kWarp ? rows : divide_up(rows * lanes, kThreads); }
};

constexpr int vectors_in_block(int width) { return width == 8 ? 4 : 5; }

// The team that leaves the fewest slots empty; of several the widest, whose accesses are longest.
RowPlan plan_row(const KlDivProblem& p, int width) {
  const int64_t vectors = p.classes / width;
  RowPlan plan;
  for (const int each : {3, 4, 5, 8}) {
    for (int lanes = 1; lanes <= kWarp; lanes *= 2) {
      if (each * width > kMostHeld || each * lanes < vectors) continue;
      const int slots = each * lanes, best = plan.vectors * plan.lanes;
      if (best == 0 || slots < best || (slots == best && lanes > plan.lanes)) plan = {each, lanes};
    }
  }
  if (plan.lanes != 0) return plan;
  const int each = vectors_in_block(width);
  const int64_t threads = divide_up(divide_up(vectors, each), kWarp) * kWarp;
  return threads <= kMostThreads ? RowPlan{each, static_cast<int>(threads)} : RowPlan{};
}

RowPlan plan_row(const KlDivProblem& p) {
  if (p.mask != nullptr) return {};
  return plan_row(p, row_vectors_align(p) ? static_cast<int>(kVectorBytes / bytes_of(p.type)) : 1);
}

template <typename scalar_t, int kWidth, int kVectors>
void launch_lanes(const KlDivProblem& p, RowPlan plan, unsigned blocks, double* partials, cudaStream_t stream) {
  if constexpr (kVectors * kWidth <= kMostHeld) {
    DETKD_LAUNCH((kl_div_row_kernel<scalar_t, kWidth, kVectors, LaneTeam>), blocks, kThreads, 0, stream, p,
                 LaneTeam{plan.lanes}, partials);
  }
}

template <typename scalar_t, int kWidth>
void launch(const KlDivProblem& p, RowPlan plan, unsigned blocks, double* partials, cudaStream_t stream) {
  if (p.mask != nullptr) {
    DETKD_LAUNCH((kl_div_masked_row_kernel<scalar_t, kWidth>), blocks, kMostThreads, 0, stream, p, partials);
  } else if (plan.lanes == 0) {
    DETKD_LAUNCH((kl_div_long_row_kernel<scalar_t, kWidth>), blocks, kMostThreads, 0, stream, p, partials);
  } else if (plan.lanes > kWarp) {
    DETKD_LAUNCH((kl_div_row_kernel<scalar_t, kWidth, vectors_in_block(kWidth), BlockTeam>), blocks, plan.lanes, 0,
                 stream, p, BlockTeam{}, partials);
  } else if (plan.vectors == 3) {
    launch_lanes<scalar_t, kWidth, 3>(p, plan, blocks, partials, stream);
  } else if (plan.vectors == 4) {
    launch_lanes<scalar_t, kWidth, 4>(p, plan, blocks, partials, stream);
  } else if (plan.vectors == 5) {
    launch_lanes<scalar_t, kWidth, 5>(p, plan, blocks, partials, stream);
  } else {
    launch_lanes<scalar_t, kWidth, 8>(p, plan, blocks, partials, stream);
  }
}

}  // namespace

int64_t kl_div_rows_workspace(const KlDivProblem& p) { return plan_row(p).blocks(p.outer.count); }

cudaError_t launch_kl_div_rows(const KlDivProblem& p, double* workspace, cudaStream_t stream) {
  const RowPlan plan = plan_row(p);
  const int64_t blocks = plan.blocks(p.outer.count);
  if (!fits_grid(blocks)) return cudaErrorInvalidConfiguration;
  for_type_and_width(p.type, row_vectors_align(p), [&](auto x, auto width) {
    launch<decltype(x), width>(p, plan, static_cast<unsigned>(blocks), workspace, stream);
  });
  if (p.reduced) DETKD_LAUNCH(ordered_sum, 1, kMostThreads, 0, stream, workspace, blocks, p.loss_scale, p.loss);
  return cudaGetLastError();
}

}  // namespace detkd
