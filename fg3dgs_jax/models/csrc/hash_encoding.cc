// The tri-plane encoding of models/hash_encoding.py (H_3 of eqs. 7 and 9) as custom calls. That
// file is the definition.
//
// XLA's CPU scatter-add walks updates one by one on one thread. Here every (plane, level) table has
// one owner, which adds the points in order: no atomics, and the same bits for any number of
// threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "cpu/parallel.h"
#include "xla/ffi/api/ffi.h"

namespace fg {
namespace {

namespace ffi = xla::ffi;

constexpr int kPlanes = 3;
constexpr int kPlaneAxes[kPlanes][2] = {{0, 1}, {1, 2}, {0, 2}};  // fast axis, slow axis
constexpr int64_t kBlock = 512;  // points handed to a worker at a time

// The static description of one plane's grids; all planes are alike. See `Levels` in
// hash_encoding.py.
struct Levels {
  ffi::Span<const int32_t> resolutions;
  ffi::Span<const float> scales;
  ffi::Span<const int32_t> offsets;  // levels + 1
  float bound;

  int64_t count() const { return static_cast<int64_t>(resolutions.size()); }
  int64_t plane_size() const { return offsets[resolutions.size()]; }
  // Where the table of (plane, level) starts.
  int64_t start(int plane, int64_t level) const { return plane * plane_size() + offsets[level]; }
};

// A position in a plane, in [0, 1]^2, or outside of it.
struct Place {
  float u, v;
  bool inside;
};

inline Place locate(const float* point, int plane, float bound) {
  const float u = (point[kPlaneAxes[plane][0]] + bound) / (2.0f * bound);
  const float v = (point[kPlaneAxes[plane][1]] + bound) / (2.0f * bound);
  return {u, v, u >= 0.0f && u <= 1.0f && v >= 0.0f && v <= 1.0f};  // false for NaN
}

// The cell a place falls in: the index of its first corner and how far in it lies.
struct Cell {
  int32_t index;
  float right, below;
};

inline Cell find_cell(const Place& place, float scale, int32_t resolution) {
  const float x = place.u * scale + 0.5f, y = place.v * scale + 0.5f;
  // Positions are not negative, so truncation is floor; rounding must not step over the last cell.
  const int32_t column = std::min(static_cast<int32_t>(x), resolution - 1);
  const int32_t row = std::min(static_cast<int32_t>(y), resolution - 1);
  return {column + row * (resolution + 1), x - static_cast<float>(column),
          y - static_cast<float>(row)};
}

ffi::Error check(const Levels& levels, const ffi::Buffer<ffi::F32>& tables,
                 const ffi::Buffer<ffi::F32>& coords) {
  if (levels.scales.size() != levels.resolutions.size() ||
      levels.offsets.size() != levels.resolutions.size() + 1) {
    return ffi::Error::InvalidArgument(
        "hash encoding: resolutions, scales and offsets do not fit together");
  }
  for (size_t i = 0; i < levels.resolutions.size(); ++i) {
    const int64_t side = levels.resolutions[i] + 1;
    if (side < 2 || levels.offsets[i + 1] - levels.offsets[i] < side * side) {
      return ffi::Error::InvalidArgument("hash encoding: a level does not fit between its offsets");
    }
  }
  if (static_cast<int64_t>(tables.element_count()) != kPlanes * levels.plane_size()) {
    return ffi::Error::InvalidArgument("hash encoding: tables must have 3 * offsets[-1] entries");
  }
  if (coords.dimensions().size() != 2 || coords.dimensions()[1] != 3) {
    return ffi::Error::InvalidArgument("hash encoding: coords must be [N, 3]");
  }
  return ffi::Error::Success();
}

ffi::Error encode_fwd(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> tables,
                      ffi::Buffer<ffi::F32> coords, ffi::ResultBuffer<ffi::F32> features,
                      ffi::Span<const int32_t> resolutions, ffi::Span<const float> scales,
                      ffi::Span<const int32_t> offsets, float bound) {
  const Levels levels{resolutions, scales, offsets, bound};
  if (ffi::Error error = check(levels, tables, coords); error.failure()) return error;
  const int64_t n = coords.dimensions()[0], count = levels.count(), width = kPlanes * count;
  if (static_cast<int64_t>(features->element_count()) != n * width) {
    return ffi::Error::InvalidArgument("hash encoding: features must be [N, 3 * levels]");
  }
  const float* points = coords.typed_data();
  const float* table = tables.typed_data();
  float* out = features->typed_data();

  parallel_for(pool, (n + kBlock - 1) / kBlock, [&](int64_t block) {
    for (int64_t i = block * kBlock; i < std::min(n, (block + 1) * kBlock); ++i) {
      for (int plane = 0; plane < kPlanes; ++plane) {
        float* row = out + i * width + plane * count;
        const Place place = locate(points + 3 * i, plane, bound);
        if (!place.inside) {
          std::fill(row, row + count, 0.0f);
          continue;
        }
        for (int64_t level = 0; level < count; ++level) {
          const Cell cell = find_cell(place, scales[level], resolutions[level]);
          const float* top = table + levels.start(plane, level) + cell.index;
          const float* bottom = top + resolutions[level] + 1;
          const float left = 1.0f - cell.right, above = 1.0f - cell.below;
          row[level] = (top[0] * left + top[1] * cell.right) * above +
                       (bottom[0] * left + bottom[1] * cell.right) * cell.below;
        }
      }
    }
  });
  return ffi::Error::Success();
}

// d loss / d coords of the points of one block.
void coords_gradient(const Levels& levels, const float* table, const float* points, const float* v,
                     float* v_points, int64_t begin, int64_t end) {
  const int64_t count = levels.count(), width = kPlanes * count;
  const float per_metre = 1.0f / (2.0f * levels.bound);
  for (int64_t i = begin; i < end; ++i) {
    float sums[3] = {0.0f, 0.0f, 0.0f};
    for (int plane = 0; plane < kPlanes; ++plane) {
      const Place place = locate(points + 3 * i, plane, levels.bound);
      if (!place.inside) continue;
      const float* row = v + i * width + plane * count;
      float du = 0.0f, dv = 0.0f;
      for (int64_t level = 0; level < count; ++level) {
        const int32_t resolution = levels.resolutions[level];
        const float scale = levels.scales[level];
        const Cell cell = find_cell(place, scale, resolution);
        const float* top = table + levels.start(plane, level) + cell.index;
        const float* bottom = top + resolution + 1;
        const float weight = row[level] * scale;
        du += weight *
              ((top[1] - top[0]) * (1.0f - cell.below) + (bottom[1] - bottom[0]) * cell.below);
        dv += weight *
              ((bottom[0] - top[0]) * (1.0f - cell.right) + (bottom[1] - top[1]) * cell.right);
      }
      sums[kPlaneAxes[plane][0]] += du;
      sums[kPlaneAxes[plane][1]] += dv;
    }
    for (int axis = 0; axis < 3; ++axis) v_points[3 * i + axis] = sums[axis] * per_metre;
  }
}

// d loss / d table of one (plane, level), all points in order.
void table_gradient(const Levels& levels, const float* points, const float* v, float* v_table,
                    int plane, int64_t level, int64_t n) {
  const int64_t width = kPlanes * levels.count();
  const int32_t resolution = levels.resolutions[level], stride = resolution + 1;
  const float scale = levels.scales[level];
  float* sums = v_table + levels.start(plane, level);
  std::fill(sums, v_table + levels.start(plane, level + 1), 0.0f);  // with the padding behind it
  const float* column = v + plane * levels.count() + level;
  for (int64_t i = 0; i < n; ++i) {
    const Place place = locate(points + 3 * i, plane, levels.bound);
    if (!place.inside) continue;
    const Cell cell = find_cell(place, scale, resolution);
    const float weight = column[i * width];
    const float lower = weight * cell.below, upper = weight - lower;
    float* top = sums + cell.index;
    float* bottom = top + stride;
    top[0] += upper * (1.0f - cell.right);
    top[1] += upper * cell.right;
    bottom[0] += lower * (1.0f - cell.right);
    bottom[1] += lower * cell.right;
  }
}

ffi::Error encode_bwd(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> tables,
                      ffi::Buffer<ffi::F32> coords, ffi::Buffer<ffi::F32> v_features,
                      ffi::ResultBuffer<ffi::F32> v_tables, ffi::ResultBuffer<ffi::F32> v_coords,
                      ffi::Span<const int32_t> resolutions, ffi::Span<const float> scales,
                      ffi::Span<const int32_t> offsets, float bound) {
  const Levels levels{resolutions, scales, offsets, bound};
  if (ffi::Error error = check(levels, tables, coords); error.failure()) return error;
  const int64_t n = coords.dimensions()[0];
  if (static_cast<int64_t>(v_features.element_count()) != n * kPlanes * levels.count() ||
      v_tables->element_count() != tables.element_count() ||
      v_coords->element_count() != coords.element_count()) {
    return ffi::Error::InvalidArgument(
        "hash encoding: cotangents do not have the shapes of their arguments");
  }
  const float* points = coords.typed_data();
  const float* v = v_features.typed_data();
  const int64_t owners = kPlanes * levels.count();
  const int64_t blocks = (n + kBlock - 1) / kBlock;
  // The tables first: they are the long items, the blocks of points fill the gaps behind them.
  parallel_for(pool, owners + blocks, [&](int64_t item) {
    if (item < owners) {
      table_gradient(levels, points, v, v_tables->typed_data(),
                     static_cast<int>(item / levels.count()), item % levels.count(), n);
    } else {
      const int64_t begin = (item - owners) * kBlock;
      coords_gradient(levels, tables.typed_data(), points, v, v_coords->typed_data(), begin,
                      std::min(n, begin + kBlock));
    }
  });
  return ffi::Error::Success();
}

}  // namespace
}  // namespace fg

XLA_FFI_DEFINE_HANDLER_SYMBOL(fg3dgs_encode_fwd, fg::encode_fwd,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()  // tables
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()  // coords
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>()  // features
                                  .Attr<xla::ffi::Span<const int32_t>>("resolutions")
                                  .Attr<xla::ffi::Span<const float>>("scales")
                                  .Attr<xla::ffi::Span<const int32_t>>("offsets")
                                  .Attr<float>("bound"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(fg3dgs_encode_bwd, fg::encode_bwd,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()  // tables
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()  // coords
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()  // v_features
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>()  // v_tables
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>()  // v_coords
                                  .Attr<xla::ffi::Span<const int32_t>>("resolutions")
                                  .Attr<xla::ffi::Span<const float>>("scales")
                                  .Attr<xla::ffi::Span<const int32_t>>("offsets")
                                  .Attr<float>("bound"));
