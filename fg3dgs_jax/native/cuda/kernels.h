// What the CUDA handlers call: each function queues its kernels on a stream and returns at once. No
// allocation, no readback, no atomics: the same launches for the same shapes, the same bits for the
// same inputs, whatever the schedule.
#pragma once

#include <cuda_runtime_api.h>
#include <stdint.h>

#include "core/rasterizer_inputs.h"
#include "core/tiles.h"
#include "cuda/layout.h"

namespace fg {

struct alignas(16) Record {  // a drawn Gaussian as blending sees it
  float u, v, A, B, C, opacity, hx, hy;
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

struct State {
  Record* records;      // [items]
  Run* runs;            // [items]
  Entry* entries;       // [pool], by tile, near to far
  int32_t* tile_begin;  // [tiles + 1]
};

struct BinWork {
  TileRect* rects;                             // [items]
  uint32_t *keys[2], *order[2];                // [items]
  uint32_t* offsets;                           // [items], by depth
  uint32_t *tile_keys[2], *slots[2], *owners;  // [pool]
  void* temp;
  size_t temp_bytes;
};

template <typename T>
T* area(void* base, int64_t offset) {
  return reinterpret_cast<T*>(static_cast<char*>(base) + offset);
}

inline State state_at(void* base, const StateLayout& at) {
  return {area<Record>(base, at.records), area<Run>(base, at.runs), area<Entry>(base, at.entries),
          area<int32_t>(base, at.tile_begin)};
}

inline BinWork work_at(void* base, const BinLayout& at) {
  BinWork w;
  w.rects = area<TileRect>(base, at.rects);
  w.offsets = area<uint32_t>(base, at.offsets);
  w.owners = area<uint32_t>(base, at.owners);
  for (int k = 0; k < 2; ++k) {
    w.keys[k] = area<uint32_t>(base, at.keys[k]);
    w.order[k] = area<uint32_t>(base, at.order[k]);
    w.tile_keys[k] = area<uint32_t>(base, at.tile_keys[k]);
    w.slots[k] = area<uint32_t>(base, at.slots[k]);
  }
  w.temp = area<void>(base, at.temp);
  w.temp_bytes = static_cast<size_t>(at.temp_bytes);
  return w;
}

struct Counts {
  int32_t *needed, *dropped;  // [batch] pairs
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

// Stable, by the low `bits` of the keys; the result lies in half `*sorted` of both pairs of
// buffers.
cudaError_t sort_pairs(cudaStream_t, void* temp, size_t temp_bytes, uint32_t* const keys[2],
                       uint32_t* const values[2], int64_t n, int bits, int* sorted);
// offsets[p] = the saturating sum of the tile counts of the items order[0 .. p - 1].
cudaError_t scan_counts(cudaStream_t, void* temp, size_t temp_bytes, const TileRect* rects,
                        const uint32_t* order, uint32_t* offsets, int64_t n);

}  // namespace fg
