// Before and after blending, over a range of Gaussians: their records and tiles, the sums of their
// slots. Compiled once per instruction set (FG_ISA), so nothing of the STL here.
#include "core/gaussian_math.h"
#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace fg {
namespace FG_ISA {

typedef Simd::F F;
typedef Simd::I I;
typedef Simd::M M;
constexpr int L = Simd::kLanes;
constexpr float kSlack = 1e-3f;  // px added to a box, so that rounding leaves no pixel out

struct Tiles {
  I begin, end;
};

// Tiles along one axis that hold a pixel centre within `half` of `center`: see tile_span.
FG_HD_INLINE Tiles tiles_of(F center, F half, int size) {
  const F limit = Simd::all(static_cast<float>(size));
  const F lo = Simd::min(Simd::max(center - half - 0.5f, Simd::all(0.0f)), limit);
  const F hi = Simd::min(Simd::max(center + half - 0.5f, Simd::all(-1.0f)), limit - 1.0f);
  const I down = Simd::truncate(lo), last = Simd::truncate(hi + 1.0f) - 1;  // floors
  const I first = down - (Simd::to_float(down) < lo);                       // ceiling; true is -1
  const I none = last < first;
  return {first / kTileSize & ~none, (last / kTileSize + 1) & ~none};
}

Chunk classify(const Scene& s, const Classified& out, int64_t begin, int64_t end) {
  const int stride = static_cast<int>(record_stride(s.channels));
  Chunk chunk = {0, 0, kCulled, 0};
  for (int64_t i0 = begin; i0 < end; i0 += L) {
    const int count = end - i0 < L ? static_cast<int>(end - i0) : L;
    F mean[2], conic[3], opacity, depth;
    Simd::gather_rows(s.means2d + 2 * i0, 2, count, mean);
    Simd::gather_rows(s.conics + 3 * i0, 3, count, conic);
    Simd::gather_rows(s.opacities + i0, 1, count, &opacity);
    Simd::gather_rows(s.depths + i0, 1, count, &depth);
    const F u = mean[0], v = mean[1], A = conic[0], B = conic[1], C = conic[2];
    F hx, hy;
    half_extents<Simd>(A, B, C, opacity, &hx, &hy);
    const Tiles tx = tiles_of(u, hx, s.width), ty = tiles_of(v, hy, s.height);
    alignas(64) float field[8][L];
    alignas(64) int32_t rect[4][L];
    const F fields[8] = {u, v, A, B, C, opacity, hy + kSlack, hx + kSlack};
    for (int k = 0; k < 8; ++k) Simd::store(field[k], fields[k]);
    const I edges[4] = {tx.begin, ty.begin, tx.end, ty.end};
    for (int k = 0; k < 4; ++k) __builtin_memcpy(rect[k], &edges[k], sizeof(I));
    const M good = Simd::both(Simd::finite(u + v + depth), Simd::gt(hx, Simd::all(0.0f)));
    const uint32_t passed = Simd::lanes_of(good);
    for (int k = 0; k < count; ++k) {
      const int64_t i = i0 + k;
      float* r = out.records + i * stride;
      const float* color = s.colors + i * s.channels;
      bool ok = (passed >> k & 1) && s.radii[2 * i] > 0 && s.radii[2 * i + 1] > 0 &&
                rect[2][k] > rect[0][k] && rect[3][k] > rect[1][k];
      for (int d = 0; d < s.channels; ++d) ok = ok && Scalar::finite(color[d]);
      if (!ok) {
        out.keys[i] = kCulled;
        out.rects[i] = {0, 0, 0, 0};
        continue;
      }
      const TileRect box = {static_cast<int16_t>(rect[0][k]), static_cast<int16_t>(rect[1][k]),
                            static_cast<int16_t>(rect[2][k]), static_cast<int16_t>(rect[3][k])};
      const int32_t columns = box.x1 - box.x0;
      const int32_t slot = static_cast<int32_t>(chunk.entries) - box.y0 * columns - box.x0;
      const uint32_t key = depth_key(s.depths[i]);
      out.rects[i] = box;
      out.keys[i] = key;
      for (int f = 0; f < 8; ++f) r[f] = field[f][k];
      __builtin_memcpy(r + kRecordSlot, &slot, 4);
      __builtin_memcpy(r + kRecordTiles, &columns, 4);
      for (int d = 0; d < s.channels; ++d) r[kRecordHead + d] = color[d];
      chunk.visible += 1, chunk.entries += box.count();
      chunk.least = key < chunk.least ? key : chunk.least;
      chunk.most = key > chunk.most ? key : chunk.most;
    }
  }
  return chunk;
}

void collect(const Scene& s, const TileRect* rects, const float* first, const SceneGrad& out,
             int64_t begin, int64_t end) {
  const int D = s.channels, stride = static_cast<int>(slot_stride(D)), lines = stride / L;
  alignas(64) float total[slot_stride(kMaxChannels)];
  for (int64_t i = begin; i < end; ++i) {
    for (int k = 0; k < lines; ++k) {
      F sum = Simd::all(0.0f);
      const float* slot = first + k * L;
      for (int32_t t = rects[i].count(); t > 0; --t, slot += stride) sum += Simd::load(slot);
      Simd::store(total + k * L, sum);
    }
    first += static_cast<int64_t>(rects[i].count()) * stride;
    const float A = s.conics[3 * i], B = s.conics[3 * i + 1], C = s.conics[3 * i + 2];
    const float *q = total, opacity = s.opacities[i];
    const bool drawn = rects[i].count() > 0;  // else its numbers may be NaN
    out.v_means2d[2 * i] = drawn ? -(A * q[1] + B * q[2]) : 0.0f;
    out.v_means2d[2 * i + 1] = drawn ? -(B * q[1] + C * q[2]) : 0.0f;
    out.v_conics[3 * i] = -0.5f * q[3];
    out.v_conics[3 * i + 1] = -q[4];
    out.v_conics[3 * i + 2] = -0.5f * q[5];
    out.v_opacities[i] = drawn ? q[0] / opacity : 0.0f;
    for (int d = 0; d < D; ++d) out.v_colors[i * D + d] = q[kSlotHead + d];
  }
}

}  // namespace FG_ISA
}  // namespace fg
