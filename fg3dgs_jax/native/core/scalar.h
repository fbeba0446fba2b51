// One float as the maths of core/ wants numbers: the counterpart of the vectors in cpu/simd.h.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "core/constants.h"

// Free functions are static: the CPU's kernels are compiled once per instruction set and must not
// share bodies.
#ifdef __CUDACC__
#define FG_HD __host__ __device__ static inline
#define FG_HD_INLINE __host__ __device__ static __forceinline__
#define FG_HD_MEMBER __host__ __device__
#else
#define FG_HD static inline
#define FG_HD_INLINE static inline __attribute__((always_inline))
#define FG_HD_MEMBER __attribute__((always_inline))
#endif

namespace fg {

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
  FG_HD_INLINE F fma(F a, F b, F c) { return fmaf(a, b, c); }
  FG_HD_INLINE F sqrt(F x) { return sqrtf(x); }
  FG_HD_INLINE F ceil(F x) { return ceilf(x); }
  FG_HD_INLINE F log(F x) { return logf(x); }
  FG_HD_INLINE F exp_neg(F s) {  // exp(-s) for s <= -kMinPower
#ifdef __CUDA_ARCH__
    F e;  // the hardware's exp2; 5e-7 wherever alpha can reach 1/255, and never denormal
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(-1.44269504f * s));
    return e;
#else
    return expf(-s);
#endif
  }
  FG_HD_INLINE M gt(F a, F b) { return a > b; }
  FG_HD_INLINE M ge(F a, F b) { return a >= b; }
  FG_HD_INLINE M finite(F x) { return fabsf(x) <= 3.402823466e38f; }  // false for NaN too
  FG_HD_INLINE M both(M a, M b) { return a && b; }
  FG_HD_INLINE F select(M m, F a, F b) { return m ? a : b; }
  FG_HD_INLINE F min(F a, F b) { return a < b ? a : b; }
  FG_HD_INLINE F max(F a, F b) { return a > b ? a : b; }
};

}  // namespace fg
