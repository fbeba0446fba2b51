// What the CUDA handlers call: each function queues its kernels on a stream and returns at once. No
// allocation, no readback, no atomics but on integers: the same launches for the same shapes, the
// same bits for the same inputs, whatever the schedule.
#pragma once

#include <cuda_runtime_api.h>
#include <stdint.h>

#include "core/rasterizer_inputs.h"
#include "core/tiles.h"
#include "cuda/layout.h"

namespace fg {

struct alignas(16) Record {  // a drawn Gaussian as blending sees it
  float u, v, half_A, B, half_C, opacity, hx, hy;
};
static_assert(sizeof(Record) == 32, "StateLayout counts on it");

// An item is a Gaussian of an image, b * N + i. Slots are numbered item by item, near to far.
struct Run {
  uint32_t begin, count;  // the slots of an item that fit in the pool
};

struct Entry {  // of a tile's list
  int32_t item;
  uint32_t slot;
};

struct List {  // of a tile; `begin` means nothing where `count` is 0
  int32_t begin, count;
};

struct State {
  Record* records;  // [items]
  Run* runs;        // [items]
  Entry* entries;   // [pool], by tile, near to far
  List* lists;      // [tiles]
};

struct BinWork {
  TileRect* rects;                             // [items]
  uint32_t *keys[2], *order[2];                // [items]
  uint32_t *tile_keys[2], *slots[2], *owners;  // [pool]
  uint32_t *depth_counts, *tile_counts;        // zeros, of the sorts
  uint32_t* totals[2];                         // [kSortDigits], of the sorts
  uint32_t* pairs;                             // how many lie in the pool
  // Zeros; the pairs of a block of depth positions, and those that an image needs.
  unsigned long long *block_pairs, *image_pairs;
  size_t zeros_before_tiles;  // bytes from depth_counts to tile_counts
};

template <typename T>
T* area(void* base, int64_t offset) {
  return reinterpret_cast<T*>(static_cast<char*>(base) + offset);
}

inline State state_at(void* base, const StateLayout& at) {
  return {area<Record>(base, at.records), area<Run>(base, at.runs), area<Entry>(base, at.entries),
          area<List>(base, at.lists)};
}

inline BinWork work_at(void* base, const BinLayout& at) {
  BinWork w;
  w.rects = area<TileRect>(base, at.rects);
  w.owners = area<uint32_t>(base, at.owners);
  for (int k = 0; k < 2; ++k) {
    w.keys[k] = area<uint32_t>(base, at.keys[k]);
    w.order[k] = area<uint32_t>(base, at.order[k]);
    w.tile_keys[k] = area<uint32_t>(base, at.tile_keys[k]);
    w.slots[k] = area<uint32_t>(base, at.slots[k]);
    w.totals[k] = area<uint32_t>(base, at.totals[k]);
  }
  w.pairs = area<uint32_t>(base, at.pairs);
  w.depth_counts = area<uint32_t>(base, at.depth_counts);
  w.tile_counts = area<uint32_t>(base, at.tile_counts);
  w.block_pairs = area<unsigned long long>(base, at.block_pairs);
  w.image_pairs = area<unsigned long long>(base, at.image_pairs);
  w.zeros_before_tiles = static_cast<size_t>(at.tile_counts - at.depth_counts);
  return w;
}

struct Counts {
  int32_t *needed, *overflow;  // [batch]: pairs, and whether some of them found no slot
};

struct ProjectOut {
  float *means2d, *depths, *conics, *compensations;  // [B, N, 2], [B, N], [B, N, 3], [B, N]
  int32_t* radii;                                    // [B, N, 2]
};

struct ProjectGrad {
  ProjectCotangents v;
  float *v_means, *v_quats, *v_scales, *v_pose;  // [B, N, 3], [B, N, 4], [B, N, 3], [B, 4, 4]
  float* partial;                                // [B, blocks, 12]
};

struct BlendGradIn {
  PictureGrad picture;
  float *slot_sums, *tile_sums;  // [pool, kSlotHead + D], [tiles, D]
};

struct BlendGradOut {
  float *v_means2d, *v_conics, *v_colors, *v_opacities, *v_background;
};

cudaError_t project(cudaStream_t, const Sizes&, const ProjectIn&, const ProjectOut&);
cudaError_t project_vjp(cudaStream_t, const Sizes&, const ProjectIn&, const ProjectGrad&);
cudaError_t bin(cudaStream_t, const Sizes&, const Splats&, const BinWork&, const State&,
                const Counts&);
cudaError_t blend(cudaStream_t, const Sizes&, const State&, const Batched<float>& colors,
                  const Batched<float>& background, float* image, float* alpha);
cudaError_t blend_vjp(cudaStream_t, const Sizes&, const State&, const Batched<float>& colors,
                      const BlendGradIn&, const BlendGradOut&);

}  // namespace fg
