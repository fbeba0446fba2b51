// Blending of one 16x16 tile, forward and backward. Compiled once per instruction set (FG_ISA), so
// nothing of the STL here: its inline functions would be shared between instruction sets by the
// linker.
//
// A tile's pixels stay in L1 as patches, 4 wide and as high as fills a vector: a Gaussian of a few
// pixels touches a third fewer of these than of rows, and visits the ones that its box touches.
// What it needs of a strip of patches stays in registers on the way down.
#include "core/blend_math.h"
#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace fg {
namespace FG_ISA {

typedef Simd::F F;
constexpr int S = kTileSize, L = Simd::kLanes;
constexpr int kWide = 4, kHigh = L / kWide;             // px, of a patch
constexpr int kDown = S / kHigh, kPatches = S * S / L;  // patches of a strip, of a tile
constexpr int kCheckEvery = 8;  // entries between two looks whether the whole tile has stopped
constexpr int kFetchAhead = 8;  // entries; their records and slots are anywhere in memory

struct Span {
  int begin, end;
};

// Pixels of 0 ... last - 1 with their centre within `half` of `center`.
FG_HD_INLINE Span span(float center, float half, int last) {
  const float lo = center - half + 0.5f, hi = center + half + 0.5f;
  const float top = static_cast<float>(last);
  Span s;  // truncation is floor here, and floor(lo) is the ceiling of what is a pixel less
  s.begin = lo <= 0.0f ? 0 : static_cast<int>(lo < top ? lo : top);
  s.end = hi <= 0.0f ? 0 : static_cast<int>(hi < top ? hi : top);
  return s;
}

struct Window {  // the tile's part of the image
  int64_t first;
  int rows, columns;
};

FG_HD_INLINE Window window_of(const Tile& tile) {
  const int rows = tile.height - tile.y * S, columns = tile.width - tile.x * S;
  return {static_cast<int64_t>(tile.y) * S * tile.width + tile.x * S, rows < S ? rows : S,
          columns < S ? columns : S};
}

// The pixels of a patch, `rows` x `columns` of which lie in the image: `channels` numbers each from
// `first` on, `pitch` pixels to a row. Lanes outside repeat the last row and column.
FG_HD_INLINE void load_patch(const float* first, int64_t pitch, int channels, int rows, int columns,
                             F* planes) {
  alignas(64) float held[kMaxChannels][L];
  if (rows >= kHigh && columns >= kWide) {
    for (int k = 0; k < L; ++k) {
      const float* pixel = first + (k / kWide * pitch + k % kWide) * channels;
      for (int c = 0; c < channels; ++c) held[c][k] = pixel[c];
    }
  } else {
    for (int k = 0; k < L; ++k) {
      const int y = k / kWide < rows ? k / kWide : rows - 1;
      const int x = k % kWide < columns ? k % kWide : columns - 1;
      const float* pixel = first + (y * pitch + x) * channels;
      for (int c = 0; c < channels; ++c) held[c][k] = pixel[c];
    }
  }
  for (int c = 0; c < channels; ++c) planes[c] = Simd::load(held[c]);
}

FG_HD_INLINE void store_patch(const F* planes, int64_t pitch, int channels, int rows, int columns,
                              float* first) {
  alignas(64) float held[kMaxChannels][L];
  for (int c = 0; c < channels; ++c) Simd::store(held[c], planes[c]);
  if (rows >= kHigh && columns >= kWide) {
    for (int k = 0; k < L; ++k) {
      float* pixel = first + (k / kWide * pitch + k % kWide) * channels;
      for (int c = 0; c < channels; ++c) pixel[c] = held[c][k];
    }
  } else {
    for (int k = 0; k < L; ++k) {
      if (k / kWide >= rows || k % kWide >= columns) continue;
      float* pixel = first + (k / kWide * pitch + k % kWide) * channels;
      for (int c = 0; c < channels; ++c) pixel[c] = held[c][k];
    }
  }
}

FG_HD_INLINE F lane_x() { return Simd::to_float(Simd::lane() % kWide); }
FG_HD_INLINE F lane_y() { return Simd::to_float(Simd::lane() / kWide); }

// T of a patch before anything is drawn.
FG_HD_INLINE F start_of_life(int rows, int columns) {
  const Simd::M inside = Simd::both(Simd::gt(Simd::all(static_cast<float>(columns)), lane_x()),
                                    Simd::gt(Simd::all(static_cast<float>(rows)), lane_y()));
  return Simd::select(inside, Simd::all(1.0f), Simd::all(-1.0f));
}

FG_HD_INLINE bool all_stopped(const float* patches, int stride) {
  F most = Simd::load(patches);
  for (int k = 1; k < kPatches; ++k) most = Simd::max(most, Simd::load(patches + k * stride));
  return !Simd::any(Simd::gt(most, Simd::all(0.0f)));
}

// A Gaussian's record, as the loops use it; px from the tile's corner.
struct Splat2d {
  float u, v, A, B, C, opacity;
  Span rows, columns;

  FG_HD_INLINE Splat2d of(const float* r, const Tile& tile, const Window& window) {
    const float u = r[0] - static_cast<float>(tile.x * S);
    const float v = r[1] - static_cast<float>(tile.y * S);
    return {u,
            v,
            r[2],
            r[3],
            r[4],
            r[5],
            span(v, r[kRecordHalfHeight], window.rows),
            span(u, r[kRecordHalfWidth], window.columns)};
  }
};

// A Gaussian on its way down a strip of patches.
struct Descent {
  F dx, across, slope, half_C, opacity, v, y;

  FG_HD_INLINE Descent of(const Splat2d& g, int strip, int row) {
    Descent d;
    d.dx = g.u - (lane_x() + (static_cast<float>(strip * kWide) + 0.5f));
    d.across = 0.5f * g.A * d.dx * d.dx;
    d.slope = g.B * d.dx;
    d.half_C = Simd::all(0.5f * g.C), d.opacity = Simd::all(g.opacity), d.v = Simd::all(g.v);
    d.y = lane_y() + (static_cast<float>(row * kHigh) + 0.5f);
    return d;
  }
  F dy() const { return v - y; }
  Hit<Simd> on(F dy, F T) const {
    return hit<Simd>(Simd::fma(half_C * dy, dy, across), slope, dy, opacity, T);
  }
  void step() { y += static_cast<float>(kHigh); }
};

template <int DD>
void blend_tile(const Tile& tile, const TileForward& io) {
  const int D = DD ? DD : tile.channels;
  constexpr int kBound = DD ? DD : kMaxChannels, stride = (1 + kBound) * L;
  alignas(64) float patches[kPatches * stride];  // [strip, down, plane, lane]: T, then the colours
  const Window window = window_of(tile);
  for (int k = 0; k < kPatches; ++k) {
    float* patch = patches + k * stride;
    Simd::store(patch,
                start_of_life(window.rows - k % kDown * kHigh, window.columns - k / kDown * kWide));
    for (int d = 0; d < D; ++d) Simd::store(patch + (1 + d) * L, Simd::all(0.0f));
  }

  for (int e = 0; e < tile.count; ++e) {
    if (e % kCheckEvery == 0 && all_stopped(patches, stride)) break;
    if (e + kFetchAhead < tile.count) __builtin_prefetch(tile.record(e + kFetchAhead));
    const float *r = tile.record(e), *color = r + kRecordHead;
    const Splat2d g = Splat2d::of(r, tile, window);
    for (int strip = g.columns.begin / kWide; strip * kWide < g.columns.end; ++strip) {
      const int top = g.rows.begin / kHigh;
      Descent descent = Descent::of(g, strip, top);
      float* patch = patches + (strip * kDown + top) * stride;
      for (int y = top * kHigh; y < g.rows.end; y += kHigh, patch += stride, descent.step()) {
        const Hit<Simd> h = descent.on(descent.dy(), Simd::load(patch));
        Simd::store(patch, h.T);
        for (int d = 0; d < D; ++d) {
          float* plane = patch + (1 + d) * L;
          Simd::store(plane, Simd::fma(h.weight, Simd::all(color[d]), Simd::load(plane)));
        }
      }
    }
  }

  for (int k = 0; k < kPatches; ++k) {
    const int y = k % kDown * kHigh, x = k / kDown * kWide;
    if (y >= window.rows || x >= window.columns) continue;
    const int rows = window.rows - y, columns = window.columns - x;
    const int64_t pixel = window.first + static_cast<int64_t>(y) * tile.width + x;
    const float* patch = patches + k * stride;
    const F left = Simd::abs(Simd::load(patch)), alpha = 1.0f - left;
    F image[kBound];
    for (int d = 0; d < D; ++d)
      image[d] = Simd::fma(left, Simd::all(io.background[d]), Simd::load(patch + (1 + d) * L));
    store_patch(&alpha, tile.width, 1, rows, columns, io.alpha + pixel);
    store_patch(image, tile.width, D, rows, columns, io.image + pixel * D);
  }
}

// Neighbours v[2 i], v[2 i + 1] become one vector, summed over pairs of lanes kStep apart.
template <int kStep>
FG_HD_INLINE void fold(F* v, int n) {
  const Simd::M upper = Simd::lanes_with<kStep>();
  for (int i = 0; 2 * i < n; ++i) {
    const F a = v[2 * i], b = 2 * i + 1 < n ? v[2 * i + 1] : a;
    v[i] = Simd::select(upper, b, a) + Simd::across<kStep>(Simd::select(upper, a, b));
  }
}

// Lane i gets the sum over the lanes of v[i]; n <= L of them, what the other lanes get is unused.
FG_HD_INLINE F sum_lanes(F* v, int n) {
  fold<1>(v, n);
  fold<2>(v, (n + 1) / 2);
  if constexpr (L >= 8) fold<4>(v, (n + 3) / 4);
  if constexpr (L >= 16) fold<8>(v, (n + 7) / 8);
  return v[0];
}

// Where the sums of the tile's e-th Gaussian go: its slots follow each other, a row of tiles after
// the other.
FG_HD_INLINE float* slot_of(const Tile& tile, const TileBackward& io, int e) {
  int32_t slot, columns;
  __builtin_memcpy(&slot, tile.record(e) + kRecordSlot, 4);
  __builtin_memcpy(&columns, tile.record(e) + kRecordTiles, 4);
  const int64_t at =
      int64_t{io.first_slots[tile.list[e] >> kChunkBits]} + slot + tile.y * columns + tile.x;
  return io.sums + at * slot_stride(tile.channels);
}

// Front to back again: `behind` holds v . (what is still behind, background included) - v_alpha
// T_final, so that dL/dalpha_i = T_i (c_i . v) - behind_i / (1 - alpha_i) without a division chain
// in T.
template <int DD>
void blend_tile_vjp(const Tile& tile, const TileBackward& io) {
  const int D = DD ? DD : tile.channels, n = kSlotHead + D;
  constexpr int kBound = DD ? DD : kMaxChannels, stride = (2 + kBound) * L;
  constexpr int kSums = (kSlotHead + kBound + L - 1) / L * L;
  alignas(64) float patches[kPatches * stride];  // [strip, down, plane]: T, behind, v_image
  const Window window = window_of(tile);
  F v_background[kBound];
  for (int d = 0; d < D; ++d) v_background[d] = Simd::all(0.0f);
  for (int k = 0; k < kPatches; ++k) {
    const int y = k % kDown * kHigh, x = k / kDown * kWide;
    const int rows = window.rows - y, columns = window.columns - x;
    float* patch = patches + k * stride;
    const F T = start_of_life(rows, columns);
    Simd::store(patch, T);
    if (rows <= 0 || columns <= 0) {
      for (int d = 1; d < 2 + D; ++d) Simd::store(patch + d * L, Simd::all(0.0f));
      continue;
    }
    const int64_t pixel = window.first + static_cast<int64_t>(y) * tile.width + x;
    F alpha, v_alpha, image[kBound], v_image[kBound];
    load_patch(io.alpha + pixel, tile.width, 1, rows, columns, &alpha);
    load_patch(io.v_alpha + pixel, tile.width, 1, rows, columns, &v_alpha);
    load_patch(io.image + pixel * D, tile.width, D, rows, columns, image);
    load_patch(io.v_image + pixel * D, tile.width, D, rows, columns, v_image);
    const F left = Simd::max(T, Simd::all(0.0f)) * (1.0f - alpha);  // 0 outside the image
    F behind = -left * v_alpha;
    for (int d = 0; d < D; ++d) {
      behind = Simd::fma(v_image[d], image[d], behind);
      v_background[d] = Simd::fma(left, v_image[d], v_background[d]);
      Simd::store(patch + (2 + d) * L, v_image[d]);
    }
    Simd::store(patch + L, behind);
  }
  for (int d = 0; d < D; ++d) {
    io.v_background[d] = 0.0f;
    for (int k = 0; k < L; ++k) io.v_background[d] += v_background[d][k];
  }

  int e = 0;
  for (; e < tile.count; ++e) {
    if (e % kCheckEvery == 0 && all_stopped(patches, stride)) break;
    if (e + 2 * kFetchAhead < tile.count) __builtin_prefetch(tile.record(e + 2 * kFetchAhead));
    if (e + kFetchAhead < tile.count) __builtin_prefetch(slot_of(tile, io, e + kFetchAhead), 1);
    const float *r = tile.record(e), *color = r + kRecordHead;
    float* out = slot_of(tile, io, e);
    const Splat2d g = Splat2d::of(r, tile, window);
    F sums[kSums];  // of q, q dx, q dy, q dx^2, q dx dy, q dy^2, then of the colours
    for (int k = 0; k < n; ++k) sums[k] = Simd::all(0.0f);
    for (int strip = g.columns.begin / kWide; strip * kWide < g.columns.end; ++strip) {
      const int top = g.rows.begin / kHigh;
      Descent descent = Descent::of(g, strip, top);
      float* patch = patches + (strip * kDown + top) * stride;
      F s0 = Simd::all(0.0f), s1 = s0;
      for (int y = top * kHigh; y < g.rows.end; y += kHigh, patch += stride, descent.step()) {
        const F T = Simd::load(patch), dy = descent.dy();
        const Hit<Simd> h = descent.on(dy, T);
        F cv = Simd::all(0.0f);  // c_i . v
        for (int d = 0; d < D; ++d) {
          const F v = Simd::load(patch + (2 + d) * L);
          cv = Simd::fma(v, Simd::all(color[d]), cv);
          sums[kSlotHead + d] = Simd::fma(h.weight, v, sums[kSlotHead + d]);
        }
        const F rest = Simd::load(patch + L) - h.weight * cv;
        const F v_alpha = T * cv - rest * Simd::reciprocal(1.0f - h.alpha);
        // q = -dL/dsigma: none where skipped or stopped, or where the clamp has zero slope.
        const Simd::M free =
            Simd::both(Simd::gt(h.weight, Simd::all(0.0f)), Simd::ge(Simd::all(kAlphaMax), h.raw));
        const F q = Simd::select(free, v_alpha * h.raw, Simd::all(0.0f)), qy = q * dy;
        Simd::store(patch, h.T);
        Simd::store(patch + L, rest);
        s0 += q, s1 += qy;
        sums[5] = Simd::fma(qy, dy, sums[5]);
      }
      const F s0x = s0 * descent.dx;
      sums[0] += s0, sums[1] += s0x, sums[2] += s1;
      sums[3] = Simd::fma(s0x, descent.dx, sums[3]);
      sums[4] = Simd::fma(s1, descent.dx, sums[4]);
    }
    for (int k = 0; k < n; k += L) Simd::store(out + k, sum_lanes(sums + k, n - k < L ? n - k : L));
  }
  for (; e < tile.count; ++e) {
    float* out = slot_of(tile, io, e);
    for (int k = 0; k < n; ++k) out[k] = 0.0f;
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
