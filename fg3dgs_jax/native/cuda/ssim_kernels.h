// What the CUDA handler of SSIM calls.
#pragma once

#include <cuda_runtime_api.h>
#include <stdint.h>

#include "cuda/layout.h"

namespace fg {

struct SsimPictures {
  const float *x, *y;  // [B, H, W, C]
  int64_t count, height, width, channels;
};

struct SsimResults {
  float *distance, *v_x;  // [B], [B, H, W, C]
  float* tile_sums;       // [B, tiles]: workspace
};

constexpr int kSsimColumns = 32, kSsimRows = 20;  // px of a block's tile, of one channel

FG_HD int64_t ssim_tiles(int64_t height, int64_t width, int64_t channels) {
  return (height + kSsimRows - 1) / kSsimRows * ((width + kSsimColumns - 1) / kSsimColumns) *
         channels;
}

cudaError_t ssim(cudaStream_t, const SsimPictures&, const SsimResults&);

}  // namespace fg
