// What a warp and a launch are made of.
#pragma once

#include <cuda_runtime.h>
#include <stdint.h>

#ifndef FG_LAUNCH  // tests run the kernels on the host, where a launch is a loop
#define FG_LAUNCH(kernel, grid, block, stream, ...) kernel<<<grid, block, 0, stream>>>(__VA_ARGS__)
#endif

namespace fg {

constexpr unsigned kAllLanes = 0xFFFFFFFFu;

inline unsigned blocks_for(int64_t threads, int64_t block) {
  return static_cast<unsigned>((threads + block - 1) / block);
}

// Sums v over the warp in about kCount + 4 shuffles, where a sum for each lane would take
// 5 kCount; afterwards v[k] of a lane is the sum of value scatter_index(kCount, lane, k).
template <int kCount, int kOffset = 16, int kSize>
__device__ __forceinline__ void reduce_scatter(float (&v)[kSize], int lane) {
  constexpr int kHalf = (kCount + 1) / 2;
  const bool upper = lane & kOffset;
#pragma unroll
  for (int k = 0; k < kHalf; ++k) {
    const float low = v[k], high = k + kHalf < kCount ? v[k + kHalf] : 0.0f;
    const float other = __shfl_xor_sync(kAllLanes, upper ? low : high, kOffset);
    v[k] = (upper ? high : low) + other;
  }
  if constexpr (kOffset > 1) reduce_scatter<kHalf, kOffset / 2>(v, lane);
}

__device__ __forceinline__ float warp_sum(float x) {
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  return x;
}

// The sum of x over the lanes up to this one.
template <typename T>
__device__ __forceinline__ T inclusive_sum(T x, int lane) {
  for (int offset = 1; offset < 32; offset *= 2) {
    const T below = __shfl_up_sync(kAllLanes, x, offset);
    if (lane >= offset) x += below;
  }
  return x;
}

}  // namespace fg
