// Which Gaussians each tile draws, near to far: a depth sort and counting, no sort by tile.
#pragma once

#include <cstdint>

#include "cpu/buffer.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace fg {

struct Bins {
  int64_t visible = 0, entries = 0;
  int tiles_x = 0, tiles_y = 0;
  Buffer<float> records;               // [N, record_stride] by Gaussian
  Buffer<TileRect> rects;              // [N] by Gaussian
  Buffer<uint32_t> keys;               // [N] by Gaussian
  Buffer<Chunk> chunks;                // [chunks]
  Buffer<int32_t> first_slots;         // [chunks]
  Buffer<uint64_t> pairs, pairs_swap;  // [visible] depth key and Gaussian
  Buffer<int32_t> order;               // [visible] Gaussians, near to far
  Buffer<TileRect> rects_in_order;     // [visible]
  Buffer<int32_t> cursor;              // [parts, tiles]
  Buffer<int32_t> tile_begin;          // [tiles + 1]
  Buffer<int32_t> lists;               // [entries] Gaussians, by tile
  Buffer<int32_t> schedule;            // [tiles] heaviest first
  Buffer<float> sums;                  // [entries, slot_stride] (backward)
  Buffer<float> tile_sums;             // [tiles, D] (backward)
};

// Fills `bins`; false where the image needs more than 2^31 - 1 entries.
bool bin(xla::ffi::ThreadPool& pool, const Scene& scene, Bins* bins);

Tile tile_at(const Scene& scene, const Bins& bins, int64_t tile);

}  // namespace fg
