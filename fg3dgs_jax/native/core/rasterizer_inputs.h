// What the rasterizer's custom calls read: the operands of a batch of images, for host and device.
// Shapes are those of one image.
#pragma once

#include <stdint.h>

#include "core/gaussian_math.h"
#include "core/strides.h"

namespace fg {

struct ProjectOptions {
  int64_t width, height;   // px
  float eps2d, near, far;  // px^2, metres, metres
  bool antialiased;
};

struct ProjectIn {
  Batched<float> means, quats, scales;  // [N, 3], [N, 4], [N, 3]
  Batched<float> pose, intrinsics;      // [4, 4], [4]: fx, fy, cx, cy
  Batched<float> opacities;             // [N], forward only
  ProjectOptions options;
  int64_t n;

  FG_HD_MEMBER View view(int64_t b) const {
    return view_of(pose.at(b), intrinsics.at(b), options.width, options.height, options.eps2d,
                   options.near, options.far, options.antialiased);
  }
};

// What the backward of the projection reads of its results, and their cotangents.
struct ProjectCotangents {
  Batched<int32_t> radii;                                         // [N, 2]
  Batched<float> v_means2d, v_depths, v_conics, v_compensations;  // [N, 2], [N], [N, 3], [N]
};

struct Splats {
  Batched<float> means2d, depths, conics, colors, opacities;  // [N, 2], [N], [N, 3], [N, D], [N]
  Batched<int32_t> radii;                                     // [N, 2]
  int64_t n, channels;
};

// A blended picture and its cotangents.
struct PictureGrad {
  Batched<float> image, alpha, v_image, v_alpha;  // [H, W, D], [H, W]
  int64_t height, width;                          // px
};

}  // namespace fg
