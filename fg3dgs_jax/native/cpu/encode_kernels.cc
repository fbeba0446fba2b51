// The tri-plane encoding over a range of points, a vector of them at a time. Compiled once per
// instruction set (FG_ISA), so nothing of the STL here.
#include "cpu/encode_kernels.h"

#include "cpu/simd.h"

namespace fg {
namespace FG_ISA {

typedef Simd::F F;
typedef Simd::I I;
constexpr int L = Simd::kLanes;

// A vector of places in one plane; see Place in core/encode_math.h. Outside: 0, and not inside.
struct Places {
  F u, v;
  Simd::M inside;
};

FG_HD_INLINE Places places_of(F u, F v) {
  const F zero = Simd::all(0.0f), one = Simd::all(1.0f);
  const Simd::M inside = Simd::both(Simd::both(Simd::ge(u, zero), Simd::ge(one, u)),
                                    Simd::both(Simd::ge(v, zero), Simd::ge(one, v)));
  return {Simd::select(inside, u, zero), Simd::select(inside, v, zero), inside};
}

struct Cells {
  I index;
  F right, below;
};

FG_HD_INLINE Cells cells_of(const Places& p, float scale, int32_t resolution) {
  const F x = p.u * scale + 0.5f, y = p.v * scale + 0.5f;
  const F limit = Simd::all(static_cast<float>(resolution - 1));
  const I column = Simd::truncate(Simd::min(x, limit)), row = Simd::truncate(Simd::min(y, limit));
  return {column + row * (resolution + 1), x - Simd::to_float(column), y - Simd::to_float(row)};
}

// [3] vectors of coordinates in [0, 1] where a point is inside.
FG_HD_INLINE void load_points(const float* points, int count, float bound, F unit[3]) {
  Simd::gather_rows(points, 3, count, unit);
  for (int axis = 0; axis < 3; ++axis) unit[axis] = (unit[axis] + bound) / (2.0f * bound);
}

void encode(const Levels& levels, const float* tables, const float* points, float* features,
            int64_t begin, int64_t end) {
  const int width = levels.features();
  alignas(64) float held[kPlanes * kMaxLevels][L];
  for (int64_t i = begin; i < end; i += L) {
    const int count = end - i < L ? static_cast<int>(end - i) : L;
    F unit[3];
    load_points(points + 3 * i, count, levels.bound, unit);
    for (int plane = 0; plane < kPlanes; ++plane) {
      const Places p = places_of(unit[fast_axis(plane)], unit[slow_axis(plane)]);
      for (int level = 0; level < levels.count; ++level) {
        const int32_t resolution = levels.resolutions[level];
        const Cells c = cells_of(p, levels.scales[level], resolution);
        const float *top = tables + levels.start(plane, level), *bottom = top + resolution + 1;
        const F left = 1.0f - c.right, above = 1.0f - c.below;
        const F value =
            (Simd::look_up(top, c.index) * left + Simd::look_up(top + 1, c.index) * c.right) *
                above +
            (Simd::look_up(bottom, c.index) * left + Simd::look_up(bottom + 1, c.index) * c.right) *
                c.below;
        Simd::store(held[plane * levels.count + level],
                    Simd::select(p.inside, value, Simd::all(0.0f)));
      }
    }
    for (int k = 0; k < count; ++k) {
      float* row = features + (i + k) * width;
      for (int c = 0; c < width; ++c) row[c] = held[c][k];
    }
  }
}

void encode_coords_vjp(const Levels& levels, const float* tables, const float* points,
                       const float* v, float* v_points, const EncodeColumns& columns, int64_t begin,
                       int64_t end) {
  const int width = levels.features();
  alignas(64) float held[kPlanes * kMaxLevels][L];
  for (int64_t i = begin; i < end; i += L) {
    const int count = end - i < L ? static_cast<int>(end - i) : L;
    F unit[3], sums[3] = {Simd::all(0.0f), Simd::all(0.0f), Simd::all(0.0f)};
    load_points(points + 3 * i, count, levels.bound, unit);
    for (int axis = 0; axis < 3; ++axis) {
      Simd::store(held[0], unit[axis]);
      __builtin_memcpy(columns.unit + axis * columns.stride + i, held[0], sizeof(F));
    }
    for (int k = 0; k < L; ++k) {  // the last vector's other lanes take no part: 0
      for (int c = 0; c < width; ++c) held[c][k] = k < count ? v[(i + k) * width + c] : 0.0f;
    }
    for (int plane = 0; plane < kPlanes; ++plane) {
      const Places p = places_of(unit[fast_axis(plane)], unit[slow_axis(plane)]);
      F du = Simd::all(0.0f), dv = du;
      for (int level = 0; level < levels.count; ++level) {
        const int32_t resolution = levels.resolutions[level];
        const Cells c = cells_of(p, levels.scales[level], resolution);
        const float *top = tables + levels.start(plane, level), *bottom = top + resolution + 1;
        const F a = Simd::look_up(top, c.index), b = Simd::look_up(top + 1, c.index);
        const F e = Simd::look_up(bottom, c.index), f = Simd::look_up(bottom + 1, c.index);
        const int feature = plane * levels.count + level;
        const F g = Simd::select(p.inside, Simd::load(held[feature]), Simd::all(0.0f));
        Simd::store(columns.v + feature * columns.stride + i, g);
        const F weight = g * levels.scales[level];
        du += weight * ((b - a) * (1.0f - c.below) + (f - e) * c.below);
        dv += weight * ((e - a) * (1.0f - c.right) + (f - b) * c.right);
      }
      sums[fast_axis(plane)] += du, sums[slow_axis(plane)] += dv;
    }
    for (int axis = 0; axis < 3; ++axis) sums[axis] *= 1.0f / (2.0f * levels.bound);
    Simd::scatter_rows(sums, 3, count, v_points + 3 * i);
  }
}

void encode_table_vjp(const Levels& levels, const EncodeColumns& columns, float* v_tables,
                      int plane, int level, int64_t n) {
  const int32_t resolution = levels.resolutions[level], stride = resolution + 1;
  float* sums = v_tables + levels.start(plane, level);
  const int32_t size = levels.offsets[level + 1] - levels.offsets[level];
  for (int32_t k = 0; k < size; ++k) sums[k] = 0.0f;  // with the padding behind it
  const float* u = columns.unit + fast_axis(plane) * columns.stride;
  const float* v = columns.unit + slow_axis(plane) * columns.stride;
  const float* weights = columns.v + (plane * levels.count + level) * columns.stride;
  alignas(64) int32_t index[L];
  alignas(64) float corner[4][L];
  for (int64_t i = 0; i < n; i += L) {
    const Cells c =
        cells_of(places_of(Simd::load(u + i), Simd::load(v + i)), levels.scales[level], resolution);
    const F weight = Simd::load(weights + i), lower = weight * c.below, upper = weight - lower;
    __builtin_memcpy(index, &c.index, sizeof(I));
    Simd::store(corner[0], upper * (1.0f - c.right)), Simd::store(corner[1], upper * c.right);
    Simd::store(corner[2], lower * (1.0f - c.right)), Simd::store(corner[3], lower * c.right);
    for (int k = 0; k < L; ++k) {
      float *top = sums + index[k], *bottom = top + stride;
      top[0] += corner[0][k], top[1] += corner[1][k];
      bottom[0] += corner[2][k], bottom[1] += corner[3][k];
    }
  }
}

}  // namespace FG_ISA
}  // namespace fg
