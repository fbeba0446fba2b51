// The part of SSIM that is compiled once per instruction set: some rows of one picture.
#pragma once

#include <cstdint>

#include "cpu/isa.h"

namespace fg {

struct Rect {
  int64_t row0, row1, col0, col1;  // half open
};

// A row is `width` pixels of `channels` floats, one behind the other.
struct SsimBand {
  const float *x, *y;  // [H, W, C], one picture
  int64_t height, width, channels;
  Rect map;          // where SSIM is computed; outside of it both pictures are equal around
  Rect out;          // the rows of the gradient to write, and the columns that `map` reaches
  float scale;       // of the gradient
  float* v_x;        // [H, W, C]
  double* row_sums;  // [H]: sums of 1 - SSIM, for the rows of `map` within those of `out`
  float* scratch;    // ssim_scratch floats
};

static inline int64_t ssim_scratch(int64_t width, int64_t channels) {
  return (4 + 3 + 4 * 11 + 3 * 11 + 1) * (width + 32) * channels;
}

#define FG_DECLARE_SSIM(isa)       \
  namespace isa {                  \
  void ssim_band(const SsimBand&); \
  }
FG_FOR_EACH_ISA(FG_DECLARE_SSIM)
#undef FG_DECLARE_SSIM

}  // namespace fg
