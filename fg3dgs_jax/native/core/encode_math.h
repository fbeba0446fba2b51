// Where a position falls in the grids of models/hash_encoding.py, for host and device.
#pragma once

#include <stdint.h>

#include "core/gaussian_math.h"

namespace fg {

constexpr int kPlanes = 3;
constexpr int kMaxLevels = 32;

// The static description of one plane's grids; all planes are alike. See `Levels` in
// hash_encoding.py.
struct Levels {
  int32_t count;
  int32_t resolutions[kMaxLevels];
  float scales[kMaxLevels];
  int32_t offsets[kMaxLevels + 1];
  float bound;  // m

  FG_HD_MEMBER int32_t plane_size() const { return offsets[count]; }
  FG_HD_MEMBER int32_t features() const { return kPlanes * count; }
  // Where the table of (plane, level) starts.
  FG_HD_MEMBER int32_t start(int plane, int level) const {
    return plane * plane_size() + offsets[level];
  }
};

// The axes of a plane: xy, yz, xz.
FG_HD int fast_axis(int plane) { return plane == 1 ? 1 : 0; }
FG_HD int slow_axis(int plane) { return plane == 0 ? 1 : 2; }

// A position in a plane, in [0, 1]^2, or outside of it.
struct Place {
  float u, v;
  bool inside;
};

FG_HD Place locate(const float* point, int plane, float bound) {
  const float u = (point[fast_axis(plane)] + bound) / (2.0f * bound);
  const float v = (point[slow_axis(plane)] + bound) / (2.0f * bound);
  return {u, v, u >= 0.0f && u <= 1.0f && v >= 0.0f && v <= 1.0f};  // false for NaN
}

// The cell a place falls in: the index of its first corner and how far in it lies.
struct Cell {
  int32_t index;
  float right, below;
};

FG_HD Cell find_cell(const Place& place, float scale, int32_t resolution) {
  const float x = place.u * scale + 0.5f, y = place.v * scale + 0.5f;
  // Positions are not negative, so truncation is floor; rounding must not step over the last cell.
  int32_t column = static_cast<int32_t>(x), row = static_cast<int32_t>(y);
  column = column < resolution - 1 ? column : resolution - 1;
  row = row < resolution - 1 ? row : resolution - 1;
  return {column + row * (resolution + 1), x - static_cast<float>(column),
          y - static_cast<float>(row)};
}

// d loss / d coords of one point: v [3 * levels].
FG_HD void coords_gradient(const Levels& levels, const float* table, const float* point,
                           const float* v, float* v_point) {
  const float per_metre = 1.0f / (2.0f * levels.bound);
  float sums[3] = {0.0f, 0.0f, 0.0f};
  for (int plane = 0; plane < kPlanes; ++plane) {
    const Place place = locate(point, plane, levels.bound);
    if (!place.inside) continue;
    float du = 0.0f, dv = 0.0f;
    for (int level = 0; level < levels.count; ++level) {
      const int32_t resolution = levels.resolutions[level];
      const float scale = levels.scales[level];
      const Cell cell = find_cell(place, scale, resolution);
      const float* top = table + levels.start(plane, level) + cell.index;
      const float* bottom = top + resolution + 1;
      const float weight = v[plane * levels.count + level] * scale;
      du +=
          weight * ((top[1] - top[0]) * (1.0f - cell.below) + (bottom[1] - bottom[0]) * cell.below);
      dv +=
          weight * ((bottom[0] - top[0]) * (1.0f - cell.right) + (bottom[1] - top[1]) * cell.right);
    }
    // Written out: an index that is not constant would send the sums to local memory.
    if (plane == 0) sums[0] += du, sums[1] += dv;
    if (plane == 1) sums[1] += du, sums[2] += dv;
    if (plane == 2) sums[0] += du, sums[2] += dv;
  }
  for (int axis = 0; axis < 3; ++axis) v_point[axis] = sums[axis] * per_metre;
}

// The look-up of one (plane, level).
FG_HD float interpolate(const Levels& levels, const float* table, const Place& place, int plane,
                        int level) {
  const Cell cell = find_cell(place, levels.scales[level], levels.resolutions[level]);
  const float* top = table + levels.start(plane, level) + cell.index;
  const float* bottom = top + levels.resolutions[level] + 1;
  const float left = 1.0f - cell.right, above = 1.0f - cell.below;
  return (top[0] * left + top[1] * cell.right) * above +
         (bottom[0] * left + bottom[1] * cell.right) * cell.below;
}

}  // namespace fg
