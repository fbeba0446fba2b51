// What one Gaussian does to one pixel, for host and device. Only loops live elsewhere.
#pragma once

#include <stdint.h>

#include "core/gaussian_math.h"

namespace fg {

FG_HD_INLINE float fma1(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return fmaf(a, b, c);
#elif defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

FG_HD_INLINE float exp_neg(float s) {  // exp(-s), 0 <= s <= -kMinPower; relative error 2e-7
#ifdef __CUDA_ARCH__
  return __expf(-s);  // the hardware's exp2; 5e-7 wherever alpha can reach 1/255
#else
  const float magic =
      12582912.0f;  // 1.5 2^23: adding it rounds to an integer, left in the low bits
  const float log2e = 1.44269504f;
  const float t = fma1(-s, log2e, magic);
  const float f = fma1(-s, log2e, magic - t);  // in [-1/2, 1/2]
  float p = 1.540353039e-4f;                   // Taylor series of 2^f
  p = fma1(p, f, 1.333355815e-3f);
  p = fma1(p, f, 9.618129108e-3f);
  p = fma1(p, f, 5.550410866e-2f);
  p = fma1(p, f, 2.402265070e-1f);
  p = fma1(p, f, 6.931471806e-1f);
  p = fma1(p, f, 1.0f);
  uint32_t bits;
  __builtin_memcpy(&bits, &t, 4);
  bits = (bits << 23) + 0x3F800000u;  // 2^integer
  float scale;
  __builtin_memcpy(&scale, &bits, 4);
  return p * scale;
#endif
}

// What one Gaussian does to one pixel; the backward calls the same function, so it takes the same
// decisions.
struct Hit {
  float raw;     // o exp(-sigma), before the clamp
  float alpha;   // after the clamp                                               eq. (4)
  float weight;  // alpha T, 0 where skipped or stopped
  float T;       // transmittance afterwards, with the sign of life
};

FG_HD_INLINE Hit hit(float base, float slope, float dy, float opacity, float T) {
  Hit h;
  const float sigma = fma1(dy, slope, base);
  float s = sigma < 0.0f ? 0.0f : sigma;
  s = s > -kMinPower ? -kMinPower : s;
  h.raw = opacity * exp_neg(s);
  h.alpha = h.raw > kAlphaMax ? kAlphaMax : h.raw;
  const float alpha = sigma < 0.0f ? 0.0f : h.alpha;
  const float after = T * (1.0f - alpha);
  const float stopped = T < 0.0f ? T : -T;
  const float next = after >= kTransmittanceMin ? after : stopped;
  const float w = after >= kTransmittanceMin ? alpha * T : 0.0f;
  h.weight = alpha >= kAlphaMin ? w : 0.0f;
  h.T = alpha >= kAlphaMin ? next : T;
  return h;
}

}  // namespace fg
