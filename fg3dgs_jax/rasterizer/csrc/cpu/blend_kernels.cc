// Blending of one 16x16 tile, forward and backward. Compiled once per instruction set (FG_ISA), so
// nothing of the STL here: its inline functions would be shared between instruction sets by the
// linker.
//
// Planes of 16-float rows stay in L1; a Gaussian visits only the rows of its box, and a row is one
// branch-free loop of 16 that the compiler turns into vectors. A pixel's transmittance carries the
// sign of its life: negative once it stopped (or lies outside the image), after which the stop test
// keeps failing by itself.
#include <stdint.h>

#include "core/blend_math.h"
#include "cpu/kernels.h"

namespace fg {
namespace FG_ISA {

constexpr int S = kTileSize;
constexpr int kCheckEvery = 8;  // entries between two looks whether the whole tile has stopped

struct Rows {
  int begin, end;
};

FG_HD_INLINE Rows rows_of(const float* r,
                          const Tile& tile) {  // rows whose centres lie in the Gaussian's box
  const float v = r[1] - static_cast<float>(tile.y0), h = r[6];
  const int last = tile.height - tile.y0 < S ? tile.height - tile.y0 : S;
  const float lo = v - h - 0.5f, hi = v + h - 0.5f;
  Rows rows;
  rows.begin = lo <= 0.0f ? 0 : (lo >= S ? S : static_cast<int>(__builtin_ceilf(lo)));
  rows.end = hi < 0.0f ? 0 : (hi >= S ? S : static_cast<int>(hi) + 1);
  rows.end = rows.end > last ? last : rows.end;
  return rows;
}

FG_HD_INLINE void start_life(const Tile& tile, float* T) {
  for (int y = 0; y < S; ++y) {
    for (int x = 0; x < S; ++x) {
      T[S * y + x] = (tile.x0 + x < tile.width && tile.y0 + y < tile.height) ? 1.0f : -1.0f;
    }
  }
}

FG_HD_INLINE bool all_stopped(const float* T) {
  float most = -1.0f;
#pragma omp simd reduction(max : most)
  for (int k = 0; k < S * S; ++k) most = T[k] > most ? T[k] : most;
  return most < 0.0f;
}

template <int DD>
void blend_tile(const Tile& tile, const TileForward& io) {
  const int D = DD ? DD : tile.channels, stride = kRecordHead + D;
  alignas(64) float T[S * S];
  alignas(64) float acc[(DD ? DD : kMaxChannels) * S * S];
  alignas(64) float base[S], slope[S], w[S];
  start_life(tile, T);
  for (int k = 0; k < D * S * S; ++k) acc[k] = 0.0f;

  for (int e = 0; e < tile.count; ++e) {
    if (e % kCheckEvery == 0 && all_stopped(T)) break;
    const float* r = tile.records + static_cast<int64_t>(tile.list[e]) * stride;
    const float* color = r + kRecordHead;
    const float u = r[0] - static_cast<float>(tile.x0), v = r[1] - static_cast<float>(tile.y0);
    const float A = r[2], B = r[3], C = r[4], opacity = r[5];
    for (int k = 0; k < S; ++k) {
      const float dx = u - (static_cast<float>(k) + 0.5f);
      base[k] = 0.5f * A * dx * dx;
      slope[k] = B * dx;
    }
    const Rows rows = rows_of(r, tile);
    for (int y = rows.begin; y < rows.end; ++y) {
      const float dy = v - (static_cast<float>(y) + 0.5f), cyy = 0.5f * C * dy * dy;
      float* Ty = T + S * y;
      for (int k = 0; k < S; ++k) {
        const Hit h = hit(base[k] + cyy, slope[k], dy, opacity, Ty[k]);
        Ty[k] = h.T;
        w[k] = h.weight;
      }
      for (int d = 0; d < D; ++d) {
        float* a = acc + (d * S + y) * S;
        for (int k = 0; k < S; ++k) a[k] = fma1(w[k], color[d], a[k]);
      }
    }
  }
  for (int y = 0; y < S && tile.y0 + y < tile.height; ++y) {
    for (int x = 0; x < S && tile.x0 + x < tile.width; ++x) {
      const int64_t pixel = static_cast<int64_t>(tile.y0 + y) * tile.width + tile.x0 + x;
      const float left = __builtin_fabsf(T[S * y + x]);
      io.alpha[pixel] = 1.0f - left;
      for (int d = 0; d < D; ++d)
        io.image[pixel * D + d] = acc[(d * S + y) * S + x] + left * io.background[d];
    }
  }
}

FG_HD_INLINE float sum16(const float* a) {
  float s = 0.0f;
#pragma omp simd reduction(+ : s)
  for (int k = 0; k < S; ++k) s += a[k];
  return s;
}

// Front to back again: `behind` holds v . (what is still behind, background included) - v_alpha
// T_final, so that dL/dalpha_i = T_i (c_i . v) - behind_i / (1 - alpha_i) without a division chain
// in T.
template <int DD>
void blend_tile_vjp(const Tile& tile, const TileBackward& io) {
  const int D = DD ? DD : tile.channels, stride = kRecordHead + D, out_stride = kSlotHead + D;
  constexpr int kPlanes = DD ? DD : kMaxChannels;
  alignas(64) float T[S * S], behind[S * S];
  alignas(64) float V[kPlanes * S * S];
  alignas(64) float dxs[S], base[S], slope[S], w[S], cv[S];
  alignas(64) float s0[S], s1[S], s2[S], sc[kPlanes * S];
  start_life(tile, T);
  for (int d = 0; d < D; ++d) io.v_background[d] = 0.0f;
  for (int k = 0; k < D * S * S; ++k) V[k] = 0.0f;
  for (int k = 0; k < S * S; ++k) behind[k] = 0.0f;
  for (int y = 0; y < S && tile.y0 + y < tile.height; ++y) {
    for (int x = 0; x < S && tile.x0 + x < tile.width; ++x) {
      const int64_t pixel = static_cast<int64_t>(tile.y0 + y) * tile.width + tile.x0 + x;
      const float left = 1.0f - io.alpha[pixel];
      float dot = -left * io.v_alpha[pixel];
      for (int d = 0; d < D; ++d) {
        const float v = io.v_image[pixel * D + d];
        V[(d * S + y) * S + x] = v;
        dot += v * io.image[pixel * D + d];
        io.v_background[d] += left * v;
      }
      behind[S * y + x] = dot;
    }
  }

  int e = 0;
  for (; e < tile.count; ++e) {
    if (e % kCheckEvery == 0 && all_stopped(T)) break;
    const float* r = tile.records + static_cast<int64_t>(tile.list[e]) * stride;
    const float* color = r + kRecordHead;
    const float u = r[0] - static_cast<float>(tile.x0), v = r[1] - static_cast<float>(tile.y0);
    const float A = r[2], B = r[3], C = r[4], opacity = r[5];
    for (int k = 0; k < S; ++k) {
      const float dx = u - (static_cast<float>(k) + 0.5f);
      dxs[k] = dx;
      base[k] = 0.5f * A * dx * dx;
      slope[k] = B * dx;
      s0[k] = s1[k] = s2[k] = 0.0f;
    }
    for (int k = 0; k < D * S; ++k) sc[k] = 0.0f;
    const Rows rows = rows_of(r, tile);
    for (int y = rows.begin; y < rows.end; ++y) {
      const float dy = v - (static_cast<float>(y) + 0.5f), cyy = 0.5f * C * dy * dy;
      float *Ty = T + S * y, *Ry = behind + S * y;
      for (int k = 0; k < S; ++k) cv[k] = 0.0f;
      for (int d = 0; d < D; ++d) {
        const float* vd = V + (d * S + y) * S;
        for (int k = 0; k < S; ++k) cv[k] = fma1(vd[k], color[d], cv[k]);
      }
      for (int k = 0; k < S; ++k) {
        const Hit h = hit(base[k] + cyy, slope[k], dy, opacity, Ty[k]);
        const float rest = Ry[k] - h.weight * cv[k];
        const float v_alpha = Ty[k] * cv[k] - rest / (1.0f - h.alpha);
        float q = v_alpha * h.raw;         // -dL/dsigma
        q = h.raw > kAlphaMax ? 0.0f : q;  // the clamp has zero slope
        q = h.weight > 0.0f ? q : 0.0f;    // skipped or stopped
        Ry[k] = rest;
        Ty[k] = h.T;
        w[k] = h.weight;
        s0[k] += q;
        s1[k] = fma1(q, dy, s1[k]);
        s2[k] = fma1(q, dy * dy, s2[k]);
      }
      for (int d = 0; d < D; ++d) {
        const float* vd = V + (d * S + y) * S;
        float* a = sc + S * d;
        for (int k = 0; k < S; ++k) a[k] = fma1(w[k], vd[k], a[k]);
      }
    }
    float q0 = 0, qx = 0, qy = 0, qxx = 0, qxy = 0,
          qyy = 0;  // sums of q, q dx, q dy, q dx^2, q dx dy, q dy^2
#pragma omp simd reduction(+ : q0, qx, qy, qxx, qxy, qyy)
    for (int k = 0; k < S; ++k) {
      const float dx = dxs[k];
      q0 += s0[k], qx += s0[k] * dx, qxx += s0[k] * dx * dx;
      qy += s1[k], qxy += s1[k] * dx, qyy += s2[k];
    }
    float* out = io.sums + static_cast<int64_t>(io.slots[e]) * out_stride;
    out[0] = -(A * qx + B * qy), out[1] = -(B * qx + C * qy);
    out[2] = -0.5f * qxx, out[3] = -qxy, out[4] = -0.5f * qyy;
    out[5] = q0 / opacity;
    for (int d = 0; d < D; ++d) out[kSlotHead + d] = sum16(sc + S * d);
  }
  for (; e < tile.count; ++e) {
    float* out = io.sums + static_cast<int64_t>(io.slots[e]) * out_stride;
    for (int k = 0; k < out_stride; ++k) out[k] = 0.0f;
  }
}

void blend(const Tile& tile, const TileForward& io) {
  switch (tile.channels) {
    case 3:
      return blend_tile<3>(tile, io);
    case 4:
      return blend_tile<4>(tile, io);
    case 5:
      return blend_tile<5>(tile, io);
    case 8:
      return blend_tile<8>(tile, io);
    default:
      return blend_tile<0>(tile, io);
  }
}

void blend_vjp(const Tile& tile, const TileBackward& io) {
  switch (tile.channels) {
    case 3:
      return blend_tile_vjp<3>(tile, io);
    case 4:
      return blend_tile_vjp<4>(tile, io);
    case 5:
      return blend_tile_vjp<5>(tile, io);
    case 8:
      return blend_tile_vjp<8>(tile, io);
    default:
      return blend_tile_vjp<0>(tile, io);
  }
}

}  // namespace FG_ISA
}  // namespace fg
