// SSIM and its gradient over some rows of one picture, streaming: the blurred rows that a window
// still needs lie in rings of 11, so everything stays in L2. Compiled once per instruction set
// (FG_ISA), so nothing of the STL here: its inline functions would be shared between instruction
// sets by the linker.
#include <stdint.h>

#include "core/ssim_math.h"
#include "cpu/ssim_band.h"

namespace fg {
namespace FG_ISA {

#ifdef __FMA__
FG_HD_INLINE float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
#else
FG_HD_INLINE float fused(float a, float b, float c) { return a * b + c; }
#endif

// out[i] = the window over taps[0][i] .. taps[10][i].
FG_HD_INLINE void blur(const float* const* taps, float* out, int64_t n) {
  const float *t0 = taps[0], *t1 = taps[1], *t2 = taps[2], *t3 = taps[3], *t4 = taps[4],
              *t5 = taps[5], *t6 = taps[6], *t7 = taps[7], *t8 = taps[8], *t9 = taps[9],
              *t10 = taps[10];
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    float sum = kSsimWindow[0] * (t0[i] + t10[i]);
    sum = fused(kSsimWindow[1], t1[i] + t9[i], sum);
    sum = fused(kSsimWindow[2], t2[i] + t8[i], sum);
    sum = fused(kSsimWindow[3], t3[i] + t7[i], sum);
    sum = fused(kSsimWindow[4], t4[i] + t6[i], sum);
    out[i] = fused(kSsimWindow[5], t5[i], sum);
  }
}

// Along a row: `in` begins half a window before `out`.
FG_HD_INLINE void blur_row(const float* in, float* out, int64_t n, int64_t channels) {
  const float* taps[kSsimTaps];
  for (int k = 0; k < kSsimTaps; ++k) taps[k] = in + k * channels;
  blur(taps, out, n);
}

// Rows of `fields` blurred pictures, the last 11 of them, and a row of zeros for those outside.
struct Ring {
  float *rows, *zeros;
  int64_t fields, stride, first, last;  // rows [first, last) exist

  FG_HD_MEMBER float* at(int64_t row, int64_t field) const {
    return rows + ((row % kSsimTaps) * fields + field) * stride;
  }
  FG_HD_MEMBER void blur_column(int64_t row, int64_t field, float* out, int64_t n) const {
    const float* taps[kSsimTaps];
    for (int k = 0; k < kSsimTaps; ++k) {
      const int64_t r = row + k - kSsimHalf;
      taps[k] = r >= first && r < last ? at(r, field) : zeros;
    }
    blur(taps, out, n);
  }
};

FG_HD_INLINE void clear(float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = 0.0f;
}

// x, y, x^2 + y^2 and x y of a row, blurred along it, for the columns of the map.
FG_HD_INLINE void blur_fields(const SsimBand& band, int64_t row, float* wide, const Ring& ring) {
  const int64_t C = band.channels, n = (band.map.col1 - band.map.col0) * C;
  const int64_t whole = n + 2 * kSsimHalf * C;
  const int64_t from = band.map.col0 - kSsimHalf, to = band.map.col1 + kSsimHalf;
  const int64_t inside0 = from < 0 ? 0 : from, inside1 = to > band.width ? band.width : to;
  const int64_t before = (inside0 - from) * C, count = (inside1 - inside0) * C;
  const float* x = band.x + (row * band.width + inside0) * C;
  const float* y = band.y + (row * band.width + inside0) * C;
  float *f0 = wide + before, *f1 = f0 + whole, *f2 = f1 + whole, *f3 = f2 + whole;
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    f0[i] = x[i];
    f1[i] = y[i];
    f2[i] = fused(x[i], x[i], y[i] * y[i]);
    f3[i] = x[i] * y[i];
  }
  for (int f = 0; f < 4; ++f) blur_row(wide + f * whole, ring.at(row, f), n, C);
}

// One row of the map from its blurred fields; returns its sum of 1 - SSIM. `v`: three rows.
FG_HD_INLINE double map_row(const float* const* f, float* const* v, int64_t n) {
  const float *f0 = f[0], *f1 = f[1], *f2 = f[2], *f3 = f[3];
  float *v0 = v[0], *v1 = v[1], *v2 = v[2];
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const SsimPixel p = ssim_pixel(f0[i], f1[i], f2[i], f3[i]);
    sum += p.distance;
    v0[i] = p.v_mean;
    v1[i] = p.v_product;
    v2[i] = p.v_square;
  }
  return static_cast<double>(sum);
}

void ssim_band(const SsimBand& band) {
  const int64_t C = band.channels, half = kSsimHalf;
  const int64_t map_n = (band.map.col1 - band.map.col0) * C;
  const int64_t out_n = (band.out.col1 - band.out.col0) * C;
  const int64_t stride = (band.width + 32) * C;
  const int64_t first = band.out.row0 - half > band.map.row0 ? band.out.row0 - half : band.map.row0;
  const int64_t last = band.out.row1 + half < band.map.row1 ? band.out.row1 + half : band.map.row1;

  float* wide = band.scratch;          // 4 rows before they are blurred
  float* partial = wide + 4 * stride;  // 3 rows of the map's derivatives, zero beside the map
  const int64_t begin = first - half > 0 ? first - half : 0;
  const int64_t end = last + half < band.height ? last + half : band.height;
  float* zeros = partial + 3 * stride;
  const Ring f{zeros + stride, zeros, 4, stride, begin, end};
  const Ring p{f.rows + 4 * kSsimTaps * stride, zeros, 3, stride, first, last};
  float* blurred = wide;  // rows read down the columns; `wide` is free again by then
  clear(partial, 4 * stride);

  int64_t have = begin;      // rows of `fields` so far
  int64_t have_map = first;  // rows of `partials` so far
  for (int64_t row = band.out.row0; row < band.out.row1; ++row) {
    const int64_t need = row + half + 1 < last ? row + half + 1 : last;
    for (; have_map < need; ++have_map) {
      const int64_t need_fields = have_map + half + 1 < end ? have_map + half + 1 : end;
      for (; have < need_fields; ++have) {
        clear(wide, 4 * stride);
        blur_fields(band, have, wide, f);
      }
      const float* sums[4];
      float* v[3];
      for (int k = 0; k < 4; ++k) {
        f.blur_column(have_map, k, blurred + k * stride, map_n);
        sums[k] = blurred + k * stride;
      }
      const int64_t offset = (band.map.col0 - (band.out.col0 - half)) * C;
      for (int k = 0; k < 3; ++k) v[k] = partial + k * stride + offset;
      const double sum = map_row(sums, v, map_n);
      if (have_map >= band.out.row0 && have_map < band.out.row1) band.row_sums[have_map] = sum;
      for (int k = 0; k < 3; ++k) blur_row(partial + k * stride, p.at(have_map, k), out_n, C);
    }
    float* out = band.v_x + (row * band.width + band.out.col0) * C;
    const float* x = band.x + (row * band.width + band.out.col0) * C;
    const float* y = band.y + (row * band.width + band.out.col0) * C;
    for (int k = 0; k < 3; ++k) p.blur_column(row, k, blurred + k * stride, out_n);
    const float *b0 = blurred, *b1 = b0 + stride, *b2 = b1 + stride;
    const float scale = band.scale;
#pragma omp simd
    for (int64_t i = 0; i < out_n; ++i)
      out[i] = scale * fused(y[i], b1[i], fused(2.0f * x[i], b2[i], b0[i]));
  }
}

}  // namespace FG_ISA
}  // namespace fg
