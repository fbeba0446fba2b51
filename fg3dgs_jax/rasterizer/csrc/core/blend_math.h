// What one Gaussian does to one pixel, for host and device. Only loops live elsewhere.
//
// Written over a type V of numbers: Scalar here, vectors of pixels in cpu/simd.h.
#pragma once

#include <stdint.h>
#include <string.h>

#include "core/gaussian_math.h"

namespace fg {

// exp(-s) for -0.5 <= s <= -kMinPower; relative error 4e-7.
template <class V>
FG_HD_INLINE typename V::F exp_neg_polynomial(typename V::F s) {
  // Adding 1.5 2^23 rounds to an integer, left in the low bits.
  const typename V::F magic = V::all(12582912.0f), log2e = V::all(1.44269504f);
  const typename V::F t = V::fma(-s, log2e, magic);
  const typename V::F f = V::fma(-s, log2e, magic - t);  // in [-1/2, 1/2]
  typename V::F p = V::all(1.32647261e-3f);              // 2^f, minimax with 2^0 exact
  p = V::fma(p, f, V::all(9.67151299e-3f));
  p = V::fma(p, f, V::all(5.55073358e-2f));
  p = V::fma(p, f, V::all(2.40222424e-1f));
  p = V::fma(p, f, V::all(6.93147004e-1f));
  p = V::fma(p, f, V::all(1.0f));
  return V::from_bits(V::bits(p) + (V::bits(t) << 23));  // times 2^integer
}

struct Scalar {
  typedef float F;
  typedef uint32_t I;
  typedef bool M;
  FG_HD_INLINE F all(float x) { return x; }
  FG_HD_INLINE I bits(F x) {
    I i;
    memcpy(&i, &x, 4);
    return i;
  }
  FG_HD_INLINE F from_bits(I i) {
    F x;
    memcpy(&x, &i, 4);
    return x;
  }
  FG_HD_INLINE F fma(F a, F b, F c) {
#if defined(__CUDA_ARCH__)
    return fmaf(a, b, c);
#else
    return __builtin_fmaf(a, b, c);
#endif
  }
  FG_HD_INLINE M ge(F a, F b) { return a >= b; }
  FG_HD_INLINE M both(M a, M b) { return a && b; }
  FG_HD_INLINE F select(M m, F a, F b) { return m ? a : b; }
  FG_HD_INLINE F min(F a, F b) { return a < b ? a : b; }
  FG_HD_INLINE F exp_neg(F s) {
#ifdef __CUDA_ARCH__
    return __expf(-s);  // the hardware's exp2; 5e-7 wherever alpha can reach 1/255
#else
    return exp_neg_polynomial<Scalar>(s);
#endif
  }
};

// The backward calls the same function as the forward, so it takes the same decisions. A pixel's
// transmittance carries the sign of its life: negative once it stopped (or lies outside the image),
// after which the stop test keeps failing by itself.
template <class V>
struct Hit {
  typename V::F raw;     // o exp(-sigma), before the clamp
  typename V::F alpha;   // after the clamp                                             eq. (4)
  typename V::F weight;  // alpha T, 0 where skipped or stopped
  typename V::F T;       // transmittance afterwards
};

// sigma = level + slope dy, the exponent at a pixel.
template <class V>
FG_HD_INLINE Hit<V> hit(typename V::F level, typename V::F slope, typename V::F dy,
                        typename V::F opacity, typename V::F T) {
  typedef typename V::F F;
  const F zero = V::all(0.0f), one = V::all(1.0f);
  const F sigma = V::fma(dy, slope, level);
  Hit<V> h;
  h.raw = opacity * V::exp_neg(V::min(sigma, V::all(-kMinPower)));
  h.alpha = V::min(h.raw, V::all(kAlphaMax));
  const F after = T * (one - h.alpha);
  const auto touched = V::both(V::ge(h.raw, V::all(kAlphaMin)), V::ge(sigma, zero));
  const auto blended = V::both(touched, V::ge(after, V::all(kTransmittanceMin)));
  h.weight = V::select(blended, h.alpha * T, zero);
  const F stopped = V::min(T, -T);
  h.T = V::select(touched, V::select(blended, after, stopped), T);
  return h;
}

}  // namespace fg
