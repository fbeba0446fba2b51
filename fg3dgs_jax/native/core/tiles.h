// Index computations of binning and reduction, for host and device; a host program tests them.
#pragma once

#include <stdint.h>
#include <string.h>

#include "core/gaussian_math.h"

namespace fg {

constexpr uint32_t kCulled = 0xFFFFFFFFu;  // depth key of what is not drawn: sorts last

struct TileRect {
  int16_t x0, y0, x1, y1;  // tiles, half open
  FG_HD_MEMBER int32_t count() const { return static_cast<int32_t>(x1 - x0) * (y1 - y0); }
};

// Orders like the float, negative ones too; below kCulled for every finite depth.
FG_HD uint32_t depth_key(float depth) {
  uint32_t bits;
  memcpy(&bits, &depth, 4);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// Tiles that hold a pixel centre within `half` of `center`, along one axis of `size` px; false if
// none.
FG_HD bool tile_span(float center, float half, int size, int16_t* begin, int16_t* end) {
  const float limit = static_cast<float>(size);
  float first = ceilf(center - half - 0.5f), last = floorf(center + half - 0.5f);
  first = first < 0.0f ? 0.0f : first;
  first = first > limit ? limit : first;
  last = last < -1.0f ? -1.0f : last;
  last = last > limit - 1.0f ? limit - 1.0f : last;
  if (!(last >= first)) return false;
  *begin = static_cast<int16_t>(static_cast<int>(first) / kTileSize);
  *end = static_cast<int16_t>(static_cast<int>(last) / kTileSize + 1);
  return true;
}

// The k-th tile of `rect`, row by row, as an index into a grid of `tiles_x` columns.
FG_HD int32_t tile_in(const TileRect& rect, int32_t k, int32_t tiles_x) {
  const int32_t columns = rect.x1 - rect.x0;
  return (rect.y0 + k / columns) * tiles_x + rect.x0 + k % columns;
}

// Position of the first of n ascending keys that is not below `key`; n if all are.
FG_HD int32_t lower_bound(const uint32_t* keys, int32_t n, uint32_t key) {
  int32_t low = 0, high = n;
  while (low < high) {
    const int32_t middle = low + (high - low) / 2;
    if (keys[middle] < key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// How many low bits hold every value up to `largest`.
FG_HD int bits_for(uint32_t largest) {
  int bits = 1;
  while (bits < 32 && largest >> bits) ++bits;
  return bits;
}

// Counts of tiles may add up to more than 32 bits hold; only the part below the capacity matters.
FG_HD uint32_t saturating_add(uint32_t a, uint32_t b) {
  const uint32_t sum = a + b;
  return sum < a ? 0xFFFFFFFFu : sum;
}

// A warp's reduce-scatter sums `count` values over 32 lanes by halving them at each of 5 exchanges:
// lane bit 16 >> level set means keeping the upper half. Which value's sum a lane holds at position
// k in the end; -1 for none.
FG_HD int scatter_index(int count, int lane, int k) {
  int sizes[5];
  for (int level = 0; level < 5; ++level) {
    sizes[level] = count;
    count = (count + 1) / 2;
  }
  if (k >= count) return -1;
  int index = k;
  for (int level = 4; level >= 0; --level) {
    if (lane & (16 >> level)) index += (sizes[level] + 1) / 2;
    if (index >= sizes[level]) return -1;
  }
  return index;
}

// Whether a box of half size (hx, hy) about (u, v) holds one of the 8x4 pixel centres of which the
// first is (x, y).
FG_HD bool touches_patch(float u, float v, float hx, float hy, float x, float y) {
  return u + hx >= x && u - hx <= x + 7.0f && v + hy >= y && v - hy <= y + 3.0f;
}

}  // namespace fg
