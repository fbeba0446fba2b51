// The loops that are compiled once per instruction set, and the tables they are reached through.
#pragma once

#include <cstdint>

#include "core/gaussian_math.h"

namespace fg {

constexpr int kRecordHead =
    8;  // floats: u, v, A, B, C, opacity, half height of the box, unused; then D colours
// A slot holds kSlotHead floats, the gradients of u, v, A, B, C, opacity; then those of D colours.

struct ProjectArgs {
  const float *means, *quats, *scales,
      *opacities;  // [N, 3], [N, 4], [N, 3], [N] (opacities: forward only)
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

// One tile and what is drawn in it, near to far.
struct Tile {
  int x0, y0, width, height, channels;  // first pixel; size of the image; D
  const int32_t* list;                  // positions of its Gaussians in `records`
  int count;
  const float* records;  // [V, kRecordHead + D], in depth order
};

struct TileForward {
  const float* background;  // [D]
  float *image, *alpha;     // [H, W, D], [H, W]
};

struct TileBackward {
  const float *image, *alpha;      // the forward's results
  const float *v_image, *v_alpha;  // their cotangents
  const int32_t* slots;            // [count], where each entry's sums go
  float* sums;                     // [slots, kSlotHead + D]
  float* v_background;             // [D], this tile's share
};

struct Kernels {
  void (*project)(const ProjectArgs&, const ProjectOut&, int64_t begin, int64_t end);
  // `v_camera` [12]: sums over the range of the gradients of R (9) and t (3).
  void (*project_vjp)(const ProjectArgs&, const ProjectGrad&, int64_t begin, int64_t end,
                      float* v_camera);
  void (*blend)(const Tile&, const TileForward&);
  void (*blend_vjp)(const Tile&, const TileBackward&);
};

// The best set for this machine (FG3DGS_ISA=base|avx2|avx512 lowers it).
const Kernels& kernels();

}  // namespace fg
