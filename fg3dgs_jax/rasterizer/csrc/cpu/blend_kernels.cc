// Blending of one 16x16 tile, forward and backward. Compiled once per instruction set (FG_ISA), so
// nothing of the STL here: its inline functions would be shared between instruction sets by the
// linker.
//
// A tile's pixels stay in L1 as rows of 16 floats, a row's planes side by side. A Gaussian visits
// the strips (as wide as a vector) and rows that its box touches; what it needs of a strip stays in
// registers on the way down.
#include "core/blend_math.h"
#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace fg {
namespace FG_ISA {

typedef Simd::F F;
constexpr int S = kTileSize, L = Simd::kLanes;
constexpr int kCheckEvery = 8;  // entries between two looks whether the whole tile has stopped
constexpr int kFetchAhead = 8;  // entries; their records and slots are anywhere in memory

struct Span {
  int begin, end;
};

// Pixels of 0 ... last - 1 with their centre within `half` of `center`.
FG_HD_INLINE Span span(float center, float half, int last) {
  const float lo = center - half + 0.5f, hi = center + half + 0.5f;
  const float top = static_cast<float>(last);
  Span s;  // truncation is floor here: ceil(center - half - 0.5) <= floor(lo) where they differ
  s.begin = lo <= 0.0f ? 0 : static_cast<int>(lo < top ? lo : top);
  s.end = hi <= 0.0f ? 0 : static_cast<int>(hi < top ? hi : top);
  return s;
}

FG_HD_INLINE bool all_stopped(const float* planes, int stride) {
  F most = Simd::all(-1.0f);
  for (int y = 0; y < S; ++y) {
    for (int x = 0; x < S; x += L) most = Simd::max(most, Simd::load(planes + y * stride + x));
  }
  return !Simd::any(Simd::gt(most, Simd::all(0.0f)));
}

FG_HD_INLINE int rows_of(const Tile& tile) {
  const int left = tile.height - tile.y * S;
  return left < S ? left : S;
}

FG_HD_INLINE int columns_of(const Tile& tile) {
  const int left = tile.width - tile.x * S;
  return left < S ? left : S;
}

FG_HD_INLINE int64_t first_pixel(const Tile& tile, int y) {  // of the tile's row y
  return static_cast<int64_t>(tile.y * S + y) * tile.width + tile.x * S;
}

// A Gaussian's record, as the loops use it.
struct Splat2d {
  float u, v, A, B, C, opacity;  // u, v in px from the tile's corner
  Span rows, columns;
};

FG_HD_INLINE Splat2d splat_of(const float* r, const Tile& tile, int height) {
  Splat2d g = {r[0] - static_cast<float>(tile.x * S),
               r[1] - static_cast<float>(tile.y * S),
               r[2],
               r[3],
               r[4],
               r[5],
               {0, 0},
               {0, 0}};
  g.rows = span(g.v, r[kRecordHalfHeight], height);
  g.columns = L < S ? span(g.u, r[kRecordHalfWidth], S) : Span{0, S};
  return g;
}

template <int DD>
void blend_tile(const Tile& tile, const TileForward& io) {
  const int D = DD ? DD : tile.channels;
  constexpr int kPlanes = 1 + (DD ? DD : kMaxChannels), stride = kPlanes * S;
  alignas(64) float planes[S * stride];  // [row, plane, column]: T, then the colours
  const int rows = rows_of(tile), columns = columns_of(tile);
  for (int y = 0; y < S; ++y) {
    float* row = planes + y * stride;
    for (int x = 0; x < S; ++x) {
      row[x] = y < rows && x < columns ? 1.0f : -1.0f;
    }
    for (int k = S; k < S * (1 + D); ++k) row[k] = 0.0f;
  }

  for (int e = 0; e < tile.count; ++e) {
    if (e % kCheckEvery == 0 && all_stopped(planes, stride)) break;
    const float* r = tile.record(e);
    if (e + kFetchAhead < tile.count) __builtin_prefetch(tile.record(e + kFetchAhead));
    const Splat2d g = splat_of(r, tile, rows);
    const float* color = r + kRecordHead;
    for (int x = g.columns.begin / L * L; x < g.columns.end; x += L) {
      const F dx = g.u - 0.5f - Simd::to_float(Simd::lane() + x);
      const F level = (0.5f * g.A) * dx * dx, slope = g.B * dx, opacity = Simd::all(g.opacity);
      for (int y = g.rows.begin; y < g.rows.end; ++y) {
        const float dy = g.v - (static_cast<float>(y) + 0.5f);
        float* row = planes + y * stride + x;
        const Hit<Simd> h =
            hit<Simd>(level + 0.5f * g.C * dy * dy, slope, Simd::all(dy), opacity, Simd::load(row));
        Simd::store(row, h.T);
        for (int d = 0; d < D; ++d) {
          float* plane = row + (1 + d) * S;
          Simd::store(plane, Simd::fma(h.weight, Simd::all(color[d]), Simd::load(plane)));
        }
      }
    }
  }

  for (int y = 0; y < rows; ++y) {
    for (int x = 0; x < columns; x += L) {
      const int count = columns - x < L ? columns - x : L;
      const int64_t pixel = first_pixel(tile, y) + x;
      const float* row = planes + y * stride + x;
      const F left = Simd::abs(Simd::load(row)), alpha = 1.0f - left;
      F image[kPlanes];
      for (int d = 0; d < D; ++d)
        image[d] = Simd::fma(left, Simd::all(io.background[d]), Simd::load(row + (1 + d) * S));
      Simd::scatter_rows(&alpha, 1, count, io.alpha + pixel);
      Simd::scatter_rows(image, D, count, io.image + pixel * D);
    }
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
  constexpr int kBound = DD ? DD : kMaxChannels;
  constexpr int kPlanes = 2 + kBound, stride = kPlanes * S;
  constexpr int kSums = (kSlotHead + kBound + L - 1) / L * L;
  alignas(64) float planes[S * stride];  // [row, plane, column]: T, behind, then v_image
  const int rows = rows_of(tile), columns = columns_of(tile);
  F v_background[kBound];
  for (int d = 0; d < D; ++d) v_background[d] = Simd::all(0.0f);
  for (int y = 0; y < S; ++y) {
    for (int x = 0; x < S; x += L) {
      float* row = planes + y * stride + x;
      const int count = y < rows ? (columns - x < L ? columns - x : L) : 0;
      if (count <= 0) {  // outside the image: stopped from the start
        for (int d = 0; d < 2 + D; ++d) Simd::store(row + d * S, Simd::all(d == 0 ? -1.0f : 0.0f));
        continue;
      }
      const int64_t pixel = first_pixel(tile, y) + x;
      F alpha, v_alpha, image[kBound], v_image[kBound];
      Simd::gather_rows(io.alpha + pixel, 1, count, &alpha);
      Simd::gather_rows(io.v_alpha + pixel, 1, count, &v_alpha);
      Simd::gather_rows(io.image + pixel * D, D, count, image);
      Simd::gather_rows(io.v_image + pixel * D, D, count, v_image);
      const Simd::M inside = Simd::first_lanes(count);
      const F left = Simd::select(inside, 1.0f - alpha, Simd::all(0.0f));
      F behind = -left * v_alpha;
      for (int d = 0; d < D; ++d) {
        behind = Simd::fma(v_image[d], image[d], behind);
        v_background[d] = Simd::fma(left, v_image[d], v_background[d]);
        Simd::store(row + (2 + d) * S, v_image[d]);
      }
      Simd::store(row, Simd::select(inside, Simd::all(1.0f), Simd::all(-1.0f)));
      Simd::store(row + S, behind);
    }
  }
  for (int d = 0; d < D; ++d) {
    io.v_background[d] = 0.0f;
    for (int k = 0; k < L; ++k) io.v_background[d] += v_background[d][k];
  }

  int e = 0;
  for (; e < tile.count; ++e) {
    if (e % kCheckEvery == 0 && all_stopped(planes, stride)) break;
    const float* r = tile.record(e);
    float* out = slot_of(tile, io, e);
    if (e + 2 * kFetchAhead < tile.count) __builtin_prefetch(tile.record(e + 2 * kFetchAhead));
    if (e + kFetchAhead < tile.count) __builtin_prefetch(slot_of(tile, io, e + kFetchAhead), 1);
    const Splat2d g = splat_of(r, tile, rows);
    const float* color = r + kRecordHead;
    F sums[kSums];  // of q, q dx, q dy, q dx^2, q dx dy, q dy^2, then of the colours
    for (int k = 0; k < kSums; ++k) sums[k] = Simd::all(0.0f);
    for (int x = g.columns.begin / L * L; x < g.columns.end; x += L) {
      const F dx = g.u - 0.5f - Simd::to_float(Simd::lane() + x);
      const F level = (0.5f * g.A) * dx * dx, slope = g.B * dx, opacity = Simd::all(g.opacity);
      F s0 = Simd::all(0.0f), s1 = s0, s2 = s0;
      for (int y = g.rows.begin; y < g.rows.end; ++y) {
        const float dy = g.v - (static_cast<float>(y) + 0.5f);
        float* row = planes + y * stride + x;
        const F T = Simd::load(row);
        const Hit<Simd> h =
            hit<Simd>(level + 0.5f * g.C * dy * dy, slope, Simd::all(dy), opacity, T);
        F cv = Simd::all(0.0f);  // c_i . v
        for (int d = 0; d < D; ++d) {
          const F v = Simd::load(row + (2 + d) * S);
          cv = Simd::fma(v, Simd::all(color[d]), cv);
          sums[kSlotHead + d] = Simd::fma(h.weight, v, sums[kSlotHead + d]);
        }
        const F rest = Simd::load(row + S) - h.weight * cv;
        const F v_alpha = T * cv - rest * Simd::reciprocal(1.0f - h.alpha);
        // q = -dL/dsigma: none where skipped or stopped, or where the clamp has zero slope.
        const Simd::M free =
            Simd::both(Simd::gt(h.weight, Simd::all(0.0f)), Simd::ge(Simd::all(kAlphaMax), h.raw));
        const F q = Simd::select(free, v_alpha * h.raw, Simd::all(0.0f));
        Simd::store(row, h.T);
        Simd::store(row + S, rest);
        s0 += q;
        s1 = Simd::fma(q, Simd::all(dy), s1);
        s2 = Simd::fma(q, Simd::all(dy * dy), s2);
      }
      const F s0x = s0 * dx;
      sums[0] += s0, sums[1] += s0x, sums[2] += s1;
      sums[3] = Simd::fma(s0x, dx, sums[3]), sums[4] = Simd::fma(s1, dx, sums[4]), sums[5] += s2;
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
