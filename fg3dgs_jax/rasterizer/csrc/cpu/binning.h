// Which Gaussians each tile draws, near to far: a depth sort and counting, no sort by tile.
#pragma once

#include <cstdint>
#include <vector>

#include "core/tiles.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace fg {

struct Scene {                                                  // one projected image's inputs
  const float *means2d, *depths, *conics, *opacities, *colors;  // [N, 2], [N], [N, 3], [N], [N, D]
  const int32_t* radii;                                         // [N, 2]
  int64_t n;
  int channels, width, height;
};

// Grow-only buffers, kept per thread, so that a step allocates nothing once it is warm.
struct Bins {
  int64_t visible = 0, entries = 0;
  int tiles_x = 0, tiles_y = 0;
  std::vector<TileRect> rect_of;           // [N] by Gaussian
  std::vector<float> half_height;          // [N] by Gaussian
  std::vector<uint32_t> key, key_swap;     // depth bits
  std::vector<int32_t> order, order_swap;  // [visible] Gaussian by depth position
  std::vector<TileRect> rects;             // [visible] by depth position
  std::vector<int32_t> offset;             // [visible + 1] first slot of each
  std::vector<float> records;              // [visible, kRecordHead + D]
  std::vector<int32_t> tile_begin;         // [tiles + 1]
  std::vector<int32_t> lists, slots;       // [entries] depth positions and slots, by tile
  std::vector<int32_t> cursor;             // [tiles]
  std::vector<int32_t> schedule;           // [tiles] heaviest first
  std::vector<float> sums;                 // [entries, kSlotHead + D] (backward)
  std::vector<float> tile_sums;            // [tiles, D] (backward)
};

template <typename T>
T* grow(std::vector<T>& v, int64_t n) {
  if (static_cast<int64_t>(v.size()) < n) v.resize(n + n / 2);
  return v.data();
}

// Fills `bins`; `with_slots`: also the slots that the backward writes to.
// False where the image needs more than 2^31 - 1 entries.
bool bin(xla::ffi::ThreadPool& pool, const Scene& scene, bool with_slots, Bins* bins);

Tile tile_at(const Scene& scene, const Bins& bins, int64_t tile);

}  // namespace fg
