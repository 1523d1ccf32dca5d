// What the kernels on feature maps share: a block takes a tile of neighbouring positions of one image, and its slices
// share out the channels.
#pragma once

#include "tile.cuh"

namespace detkd {

// 128 bytes of every channel: 32 positions of float32, 64 of a 16-bit type; 32 where vectors do not align.
template <int kWidth>
using MapTile = Tile<kWidth, kWidth == 1 ? kWarp : kWarp / 4>;

template <int kWidth>
int64_t tiles_of_image(int64_t positions) {
  return divide_up(positions, MapTile<kWidth>::kPositions);
}

// Host: room for so many doubles in the gradient's memory, which holds nothing until a launch's last kernel; null where it
// is too small or no gradient is wanted.
inline double* room_in_gradient(const FeatureMaps& maps, int64_t doubles) {
  const int64_t bytes = maps.batch * maps.channels * maps.positions * bytes_of(maps.type);
  const bool aligned = reinterpret_cast<uintptr_t>(maps.gradient) % sizeof(double) == 0;
  const bool fits = maps.gradient != nullptr && aligned && doubles * static_cast<int64_t>(sizeof(double)) <= bytes;
  return fits ? static_cast<double*>(maps.gradient) : nullptr;
}

struct MapPlace {
  int64_t image, tile, position;  // of this thread's vector
  bool exists;                    // the last tile of an image may be wider than what is left
};

template <int kWidth>
__device__ MapPlace map_place(const FeatureMaps& maps) {
  const Division where = divide(blockIdx.x, divide_up(maps.positions, MapTile<kWidth>::kPositions));
  const int64_t position = where.remainder * MapTile<kWidth>::kPositions + MapTile<kWidth>::column() * kWidth;
  return {where.quotient, where.remainder, position, position < maps.positions};
}

// Sums of two maps at a position.
struct PairOfSums {
  double student, teacher;

  __device__ PairOfSums operator+(const PairOfSums& other) const {
    return {student + other.student, teacher + other.teacher};
  }
};

// Finishes maps: writes the sums over all slices to [student, teacher][batch][position].
template <int kWidth>
__device__ void write_maps(const CompensatedSum (&student)[kWidth], const CompensatedSum (&teacher)[kWidth],
                           const MapPlace& place, const FeatureMaps& maps, double* to) {
  const auto sums = [&](int i) { return PairOfSums{student[i].total(), teacher[i].total()}; };
  const int64_t first = place.tile * MapTile<kWidth>::kPositions;
  MapTile<kWidth>::fold(sums, Sum{}, [&](int position, const PairOfSums& all) {
    if (first + position < maps.positions) {
      double* at = to + place.image * maps.positions + first + position;
      at[0] = all.student;
      at[maps.batch * maps.positions] = all.teacher;
    }
    return all;
  });
}

}  // namespace detkd
