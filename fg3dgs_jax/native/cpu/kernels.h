// The loops that are compiled once per instruction set, and the tables they are reached through.
#pragma once

#include <cstdint>

#include "core/gaussian_math.h"
#include "core/tiles.h"

namespace fg {

// A Gaussian's record, in floats: u, v, A, B, C, opacity, half height and half width of its box;
// two ints, where its slots start and how many tiles wide it is; then D colours. Up to 6 channels
// it is one cache line.
constexpr int kRecordHead = 10;
constexpr int kRecordHalfHeight = 6, kRecordHalfWidth = 7, kRecordSlot = 8, kRecordTiles = 9;

// A slot holds the kSlotHead + D sums of one (tile, Gaussian) pair: of q = -dL/dsigma times 1, dx,
// dy, dx^2, dx dy, dy^2, then the gradients of the colours.
static constexpr int64_t lines_of(int64_t floats) { return (floats + 15) / 16 * 16; }
static constexpr int64_t record_stride(int64_t channels) {
  return lines_of(kRecordHead + channels);
}
static constexpr int64_t slot_stride(int64_t channels) { return lines_of(kSlotHead + channels); }

constexpr int kChunkBits = 10, kChunk = 1 << kChunkBits;  // Gaussians an item of a parallel loop

struct ProjectArgs {
  const float *means, *quats, *scales;  // [N, 3], [N, 4], [N, 3]
  const float* opacities;               // [N], forward only
  View view;
};

struct ProjectOut {
  float *means2d, *depths, *conics, *compensations;  // [N, 2], [N], [N, 3], [N]
  int32_t* radii;                                    // [N, 2]
};

struct ProjectGrad {
  const int32_t* radii;                                            // [N, 2]
  const float *v_means2d, *v_depths, *v_conics, *v_compensations;  // as ProjectOut
  float *v_means, *v_quats, *v_scales;                             // [N, 3], [N, 4], [N, 3]
};

struct Scene {                                                  // one projected image's inputs
  const float *means2d, *depths, *conics, *opacities, *colors;  // [N, 2], [N], [N, 3], [N], [N, D]
  const int32_t* radii;                                         // [N, 2]
  int64_t n;
  int channels, width, height;
};

struct Classified {  // by Gaussian
  float* records;    // [N, record_stride]
  TileRect* rects;   // [N], empty: not drawn
  uint32_t* keys;    // [N] depth keys, kCulled: not drawn
};

struct Chunk {  // kChunk Gaussians
  int64_t visible, entries;
  uint32_t least, most;  // of the visible ones' keys
};

// One tile and what is drawn in it, near to far.
struct Tile {
  int x, y, width, height, channels;  // in tiles; size of the image in px; D
  const int32_t* list;                // its Gaussians
  int count;
  const float* records;  // [N, record_stride]
  FG_HD_MEMBER const float* record(int e) const {
    return records + list[e] * record_stride(channels);
  }
};

struct TileForward {
  const float* background;  // [D]
  float *image, *alpha;     // [H, W, D], [H, W]
};

struct TileBackward {
  const float *image, *alpha;      // the forward's results
  const float *v_image, *v_alpha;  // their cotangents
  const int32_t* first_slots;      // [chunks]
  float* sums;                     // [slots, slot_stride]
  float* v_background;             // [D], this tile's share
};

struct SceneGrad {
  float *v_means2d, *v_conics, *v_colors, *v_opacities;  // as Scene
};

struct Kernels {
  void (*project)(const ProjectArgs&, const ProjectOut&, int64_t begin, int64_t end);
  // `v_camera` [12]: sums over the range of the gradients of R (9) and t (3).
  void (*project_vjp)(const ProjectArgs&, const ProjectGrad&, int64_t begin, int64_t end,
                      float* v_camera);
  Chunk (*classify)(const Scene&, const Classified&, int64_t begin, int64_t end);
  void (*blend)(const Tile&, const TileForward&);
  void (*blend_vjp)(const Tile&, const TileBackward&);
  // Adds up each Gaussian's slots, which follow each other from `first` (of `begin`) on.
  void (*collect)(const Scene&, const TileRect* rects, const float* first, const SceneGrad&,
                  int64_t begin, int64_t end);
};

// The best set for this machine (FG3DGS_ISA=base|avx2|avx512 lowers it).
const Kernels& kernels();

}  // namespace fg
