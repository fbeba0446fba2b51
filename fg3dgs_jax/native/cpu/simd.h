// Vectors of floats as wide as the instruction set (FG_ISA) this file is compiled for. The CPU's
// kernels are written once over these; fg::Scalar in core/scalar.h has the same functions for
// one float.
#pragma once

#include <stdint.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#include "core/scalar.h"

namespace fg {
namespace FG_ISA {

struct Simd {
#if defined(__AVX512F__)
  static constexpr int kLanes = 16;
#elif defined(__AVX2__)
  static constexpr int kLanes = 8;
#else
  static constexpr int kLanes = 4;
#endif
  typedef float F __attribute__((vector_size(4 * kLanes)));
  typedef int32_t I __attribute__((vector_size(4 * kLanes)));

  FG_HD_INLINE F load(const float* a) {  // at a multiple of the vector's size
    return *reinterpret_cast<const F*>(__builtin_assume_aligned(a, sizeof(F)));
  }
  FG_HD_INLINE void store(float* a, F x) {
    *reinterpret_cast<F*>(__builtin_assume_aligned(a, sizeof(F))) = x;
  }
  FG_HD_INLINE F all(float x) { return F{} + x; }
  FG_HD_INLINE I lane() {
    I x;
    for (int k = 0; k < kLanes; ++k) x[k] = k;
    return x;
  }
  FG_HD_INLINE F to_float(I x) { return __builtin_convertvector(x, F); }
  FG_HD_INLINE I truncate(F x) { return __builtin_convertvector(x, I); }
  FG_HD_INLINE I bits(F x) { return (I)x; }
  FG_HD_INLINE F from_bits(I x) { return (F)x; }

#if defined(__AVX512F__)
  typedef __mmask16 M;
  FG_HD_INLINE M ge(F a, F b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GE_OQ); }
  FG_HD_INLINE M gt(F a, F b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ); }
  FG_HD_INLINE M both(M a, M b) { return a & b; }
  FG_HD_INLINE F select(M m, F a, F b) { return (F)_mm512_mask_blend_ps(m, (__m512)b, (__m512)a); }
  FG_HD_INLINE uint32_t lanes_of(M m) { return m; }  // bit k for lane k
  FG_HD_INLINE F fma(F a, F b, F c) { return (F)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
  FG_HD_INLINE F min(F a, F b) { return (F)_mm512_min_ps((__m512)a, (__m512)b); }
  FG_HD_INLINE F max(F a, F b) { return (F)_mm512_max_ps((__m512)a, (__m512)b); }
  FG_HD_INLINE F sqrt(F a) { return (F)_mm512_sqrt_ps((__m512)a); }
  FG_HD_INLINE F look_up(const float* table, I index) {
    return (F)_mm512_i32gather_ps((__m512i)index, table, 4);
  }
  FG_HD_INLINE F reciprocal(F a) {  // relative error 1e-7; a division takes three times as long
    const F r = (F)_mm512_rcp14_ps((__m512)a);
    return fma(r, fma(-a, r, all(1.0f)), r);
  }
#else
  typedef I M;
  FG_HD_INLINE M ge(F a, F b) { return a >= b; }
  FG_HD_INLINE M gt(F a, F b) { return a > b; }
  FG_HD_INLINE M both(M a, M b) { return a & b; }
  FG_HD_INLINE F reciprocal(F a) { return 1.0f / a; }
#if defined(__AVX2__)
  FG_HD_INLINE F select(M m, F a, F b) {
    return (F)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)m);
  }
  FG_HD_INLINE uint32_t lanes_of(M m) { return _mm256_movemask_ps((__m256)m); }
  FG_HD_INLINE F fma(F a, F b, F c) { return (F)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
  FG_HD_INLINE F min(F a, F b) { return (F)_mm256_min_ps((__m256)a, (__m256)b); }
  FG_HD_INLINE F max(F a, F b) { return (F)_mm256_max_ps((__m256)a, (__m256)b); }
  FG_HD_INLINE F sqrt(F a) { return (F)_mm256_sqrt_ps((__m256)a); }
#else
  FG_HD_INLINE F select(M m, F a, F b) { return (F)((m & (I)a) | (~m & (I)b)); }
  FG_HD_INLINE uint32_t lanes_of(M m) { return (m[0] & 1) | (m[1] & 2) | (m[2] & 4) | (m[3] & 8); }
#if defined(__ARM_NEON)
  FG_HD_INLINE F fma(F a, F b, F c) {
    return (F)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
  }
#else
  FG_HD_INLINE F fma(F a, F b, F c) { return a * b + c; }
#endif
  FG_HD_INLINE F min(F a, F b) { return select(a < b, a, b); }
  FG_HD_INLINE F max(F a, F b) { return select(a > b, a, b); }
  FG_HD_INLINE F sqrt(F a) {
    F x;
    for (int k = 0; k < kLanes; ++k) x[k] = __builtin_sqrtf(a[k]);
    return x;
  }
#endif
#endif

  FG_HD_INLINE F exp_neg(F s) {  // exp(-s) for -0.5 <= s <= -kMinPower; relative error 4e-7
    // Adding 1.5 2^23 rounds to an integer, left in the low bits.
    const F magic = all(12582912.0f), log2e = all(1.44269504f);
    const F t = fma(-s, log2e, magic);
    const F f = fma(-s, log2e, magic - t);  // in [-1/2, 1/2]
    F p = all(1.32647261e-3f);              // 2^f, minimax with 2^0 exact
    p = fma(p, f, all(9.67151299e-3f));
    p = fma(p, f, all(5.55073358e-2f));
    p = fma(p, f, all(2.40222424e-1f));
    p = fma(p, f, all(6.93147004e-1f));
    p = fma(p, f, all(1.0f));
    return from_bits(bits(p) + (bits(t) << 23));  // times 2^integer
  }
  FG_HD_INLINE F ceil(F x) {  // of 0 to 2^30
    const F down = to_float(truncate(x));
    return down + select(gt(x, down), all(1.0f), all(0.0f));
  }

  FG_HD_INLINE M first_lanes(int count) {
    return gt(all(static_cast<float>(count)), to_float(lane()));
  }
  FG_HD_INLINE F abs(F x) { return from_bits(bits(x) & 0x7FFFFFFF); }
#if !defined(__AVX512F__)
  FG_HD_INLINE F look_up(const float* table, I index) {  // table[index]
    F x;
    for (int k = 0; k < kLanes; ++k) x[k] = table[index[k]];
    return x;
  }
#endif
  FG_HD_INLINE bool any(M m) { return lanes_of(m) != 0; }
  FG_HD_INLINE M finite(F x) { return ge(all(3.402823466e38f), abs(x)); }

  // Of normal numbers above 0; relative error 3e-7.
  FG_HD_INLINE F log(F x) {
    const I shifted = bits(x) - 0x3F3504F3;  // so that the mantissa lies in [sqrt(1/2), sqrt(2))
    const I exponent = shifted >> 23;
    const F m = from_bits(bits(x) - (exponent << 23));
    const F s = (m - 1.0f) / (m + 1.0f), s2 = s * s;
    F p = fma(all(2.0f / 9.0f), s2, all(2.0f / 7.0f));
    p = fma(fma(fma(p, s2, all(2.0f / 5.0f)), s2, all(2.0f / 3.0f)), s2, all(2.0f));
    return fma(to_float(exponent), all(0.693147181f), p * s);
  }

  // Columns of `count` <= kLanes rows of `width` <= kMaxChannels numbers, and back. Lanes from
  // `count` on repeat the last row. Written for constant widths.
  template <typename X, typename T>
  FG_HD_INLINE void gather_rows(const T* rows, int width, int count, X* columns) {
    alignas(64) T held[kMaxChannels][kLanes];
    if (count == kLanes) {
      for (int k = 0; k < kLanes; ++k) {
        for (int c = 0; c < width; ++c) held[c][k] = rows[width * k + c];
      }
    } else {
      for (int k = 0; k < kLanes; ++k) {
        const int row = k < count ? k : count - 1;
        for (int c = 0; c < width; ++c) held[c][k] = rows[width * row + c];
      }
    }
    for (int c = 0; c < width; ++c) __builtin_memcpy(columns + c, held[c], sizeof(X));
  }
  template <typename X, typename T>
  FG_HD_INLINE void scatter_rows(const X* columns, int width, int count, T* rows) {
    alignas(64) T held[kMaxChannels][kLanes];
    for (int c = 0; c < width; ++c) __builtin_memcpy(held[c], columns + c, sizeof(X));
    if (count == kLanes) {
      for (int k = 0; k < kLanes; ++k) {
        for (int c = 0; c < width; ++c) rows[width * k + c] = held[c][k];
      }
    } else {
      for (int k = 0; k < kLanes && k < count; ++k) {
        for (int c = 0; c < width; ++c) rows[width * k + c] = held[c][k];
      }
    }
  }

  // Lane i is lane i ^ D of `x`.
  template <int D>
  FG_HD_INLINE F across(F x) {
#if defined(__clang__)  // has no __builtin_shuffle, and makes one of this loop
    F y;
    for (int k = 0; k < kLanes; ++k) y[k] = x[k ^ D];
    return y;
#else
    return __builtin_shuffle(x, lane() ^ D);
#endif
  }
  template <int D>
  FG_HD_INLINE M lanes_with() {  // those whose number has the bit D
#if defined(__AVX512F__)
    return D == 1 ? 0xAAAA : D == 2 ? 0xCCCC : D == 4 ? 0xF0F0 : 0xFF00;
#else
    return (lane() & D) != 0;
#endif
  }
};

}  // namespace FG_ISA
}  // namespace fg
