// The tri-plane encoding of models/hash_encoding.py (H_3 of eqs. 7 and 9) as custom calls. That
// file is the definition.
//
// XLA's CPU scatter-add walks updates one by one on one thread. Here every (plane, level) table has
// one owner, which adds the points in order: no atomics, and the same bits for any number of
// threads.

#include <algorithm>
#include <cstdint>

#include "cpu/parallel.h"
#include "hash_encoding_door.h"

namespace fg {
namespace {

constexpr int64_t kBlock = 512;  // points handed to a worker at a time

ffi::Error encode_fwd(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> tables,
                      ffi::Buffer<ffi::F32> coords, ffi::ResultBuffer<ffi::F32> features,
                      ffi::Span<const int32_t> resolutions, ffi::Span<const float> scales,
                      ffi::Span<const int32_t> offsets, float bound) {
  Levels levels;
  if (ffi::Error error =
          check_encoding(resolutions, scales, offsets, bound, tables, coords, &levels);
      error.failure()) {
    return error;
  }
  const int64_t n = coords.dimensions()[0], count = levels.count, width = levels.features();
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
        for (int level = 0; level < count; ++level)
          row[level] = interpolate(levels, table, place, plane, level);
      }
    }
  });
  return ffi::Error::Success();
}

// d loss / d tables of some levels of a plane, all points in order.
void table_gradient(const Levels& levels, const float* points, const float* v, float* v_table,
                    int plane, int first, int last, int64_t n) {
  const int64_t width = levels.features();
  std::fill(v_table + levels.start(plane, first), v_table + levels.start(plane, last),
            0.0f);  // with the padding behind each level
  for (int64_t i = 0; i < n; ++i) {
    const Place place = locate(points + 3 * i, plane, levels.bound);
    if (!place.inside) continue;
    const float* weights = v + i * width + plane * levels.count;
    for (int level = first; level < last; ++level) {
      const int32_t resolution = levels.resolutions[level];
      const Cell cell = find_cell(place, levels.scales[level], resolution);
      const float weight = weights[level];
      const float lower = weight * cell.below, upper = weight - lower;
      float* top = v_table + levels.start(plane, level) + cell.index;
      float* bottom = top + resolution + 1;
      top[0] += upper * (1.0f - cell.right);
      top[1] += upper * cell.right;
      bottom[0] += lower * (1.0f - cell.right);
      bottom[1] += lower * cell.right;
    }
  }
}

ffi::Error encode_bwd(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> tables,
                      ffi::Buffer<ffi::F32> coords, ffi::Buffer<ffi::F32> v_features,
                      ffi::ResultBuffer<ffi::F32> v_tables, ffi::ResultBuffer<ffi::F32> v_coords,
                      ffi::Span<const int32_t> resolutions, ffi::Span<const float> scales,
                      ffi::Span<const int32_t> offsets, float bound) {
  Levels levels;
  if (ffi::Error error =
          check_encoding(resolutions, scales, offsets, bound, tables, coords, &levels);
      error.failure()) {
    return error;
  }
  const int64_t n = coords.dimensions()[0];
  if (static_cast<int64_t>(v_features.element_count()) != n * levels.features() ||
      v_tables->element_count() != tables.element_count() ||
      v_coords->element_count() != coords.element_count()) {
    return ffi::Error::InvalidArgument(
        "hash encoding: cotangents do not have the shapes of their arguments");
  }
  const float* points = coords.typed_data();
  const float* v = v_features.typed_data();
  // A plane's levels are shared out no finer than there are workers: who owns several finds a
  // point's place in the plane once for all.
  const int64_t groups =
      std::min<int64_t>(levels.count, (worker_count(pool) + kPlanes - 1) / kPlanes);
  const int64_t owners = kPlanes * groups;
  const int64_t blocks = (n + kBlock - 1) / kBlock;
  // The tables first: they are the long items, the blocks of points fill the gaps behind them.
  parallel_for(pool, owners + blocks, [&](int64_t item) {
    if (item < owners) {
      const int64_t plane = item / groups, group = item % groups;
      table_gradient(levels, points, v, v_tables->typed_data(), static_cast<int>(plane),
                     static_cast<int>(levels.count * group / groups),
                     static_cast<int>(levels.count * (group + 1) / groups), n);
    } else {
      const int64_t begin = (item - owners) * kBlock;
      for (int64_t i = begin; i < std::min(n, begin + kBlock); ++i) {
        coords_gradient(levels, tables.typed_data(), points + 3 * i, v + i * levels.features(),
                        v_coords->typed_data() + 3 * i);
      }
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
