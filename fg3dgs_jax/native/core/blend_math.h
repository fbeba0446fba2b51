// What one Gaussian does to one pixel, for host and device. Only loops live elsewhere.
//
// Written over a type V of numbers: Scalar of core/scalar.h, or a vector of pixels (cpu/simd.h).
#pragma once

#include "core/scalar.h"

namespace fg {

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
