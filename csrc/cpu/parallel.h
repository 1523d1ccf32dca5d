// Deterministic sums over work that threads share: the units and their order do not depend on the number of threads.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace detkd {

// Calls work(begin, end) for pieces of at most `piece` of each of `runs` runs of `length` items, and adds up what it says.
template <typename Work>
double sum_over(int64_t runs, int64_t length, int64_t piece, Work work) {
  const int64_t pieces = (length + piece - 1) / piece;
  std::vector<double> sums(runs * pieces);
  at::parallel_for(0, runs * pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t run = i / pieces * length, first = i % pieces * piece;
      sums[i] = work(run + first, run + std::min(first + piece, length));
    }
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

// Adds up what work(image) says. Where there are enough images, each thread takes some: their second pass finds them in its
// caches, and nobody waits for the others. Else the images come one after another and share out their pieces.
template <typename Work>
double sum_over_images(int64_t batch, Work work) {
  std::vector<double> sums(batch);
  const auto take = [&](int64_t begin, int64_t end) {
    for (int64_t image = begin; image < end; ++image) sums[image] = work(image);
  };
  if (batch >= 2 * at::get_num_threads()) {
    at::parallel_for(0, batch, 1, take);
  } else {
    take(0, batch);
  }
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

// Calls work(begin, end) for pieces of `piece` of `length` items; `depth` is what each item costs.
template <typename Work>
void for_pieces(int64_t length, int64_t piece, int64_t depth, Work work) {
  const int64_t pieces = (length + piece - 1) / piece, worth_a_thread = 16384 / (piece * depth) + 1;
  at::parallel_for(0, pieces, worth_a_thread, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) work(i * piece, std::min((i + 1) * piece, length));
  });
}

}  // namespace detkd
