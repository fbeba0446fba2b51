// Blending and its gradient: a block is a tile of 16x16 pixels, a warp an 8x4 patch of it. Each
// warp ballots which of 32 staged Gaussians touch its patch and walks only those.
#include <type_traits>

#include "core/blend_math.h"
#include "cuda/kernels.h"
#include "cuda/warp.cuh"

namespace fg {
namespace {

constexpr int kThreads = kTileSize * kTileSize;
constexpr int kWarps = kThreads / 32;
constexpr int kGroup = 16;  // lanes that sum one Gaussian's slots

// Channel counts up to 5 have kernels of their own; the others run in one with a bound above them.
template <int kBound>
__device__ __forceinline__ int channels_of(const Sizes& s) {
  return kBound <= 5 ? kBound : static_cast<int>(s.channels);
}

// A thread's pixel and its warp's patch.
struct Place {
  int64_t b, pixel;       // image, row * width + column
  float x, y, left, top;  // pixel centre; centre of the patch's first pixel
  bool inside;            // of the image
};

__device__ __forceinline__ Place place_of(const Sizes& s) {
  const int tiles_x = static_cast<int>(s.tiles_x()), tiles_y = static_cast<int>(s.tiles_y());
  const int tile = blockIdx.x % (tiles_x * tiles_y);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int x0 = tile % tiles_x * kTileSize + warp % 2 * 8;
  const int y0 = tile / tiles_x * kTileSize + warp / 2 * 4;
  const int x = x0 + lane % 8, y = y0 + lane / 8;
  Place p;
  p.b = blockIdx.x / (tiles_x * tiles_y);
  p.pixel = static_cast<int64_t>(y) * s.width + x;
  p.x = x + 0.5f, p.y = y + 0.5f, p.left = x0 + 0.5f, p.top = y0 + 0.5f;
  p.inside = x < s.width && y < s.height;
  return p;
}

__device__ __forceinline__ float quotient(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fdividef(a, b);  // to 2 ulp, without the branch for denormals
#else
  return a / b;
#endif
}

// At distance (dx, dy) of a Gaussian's centre: sigma = A/2 dx^2 + (B dx + C/2 dy) dy.
__device__ __forceinline__ Hit<Scalar> hit_at(const Record& r, float dx, float dy, float T) {
  return hit<Scalar>(r.half_A * dx * dx, fmaf(r.half_C, dy, r.B * dx), dy, r.opacity, T);
}

// Floats from one staged Gaussian's colours to the next: three are read at once.
FG_HD constexpr int shade_stride(int bound) { return bound == 3 ? 4 : bound; }

template <int kBound>
__global__ void __launch_bounds__(kThreads)
    blend_kernel(Sizes s, State state, const __grid_constant__ Batched<float> colors_,
                 const __grid_constant__ Batched<float> background_, float* image, float* alpha) {
  constexpr int kShade = shade_stride(kBound);
  __shared__ Record records[kThreads];
  alignas(16) __shared__ float shades[kThreads * kShade];
  const int D = channels_of<kBound>(s), thread = threadIdx.x, lane = thread % 32;
  const Place at = place_of(s);
  const float* colors = colors_.at(at.b);
  float T = at.inside ? 1.0f : -1.0f;  // negative: the pixel has stopped
  float sums[kBound];
#pragma unroll
  for (int d = 0; d < kBound; ++d) sums[d] = 0.0f;

  const List list = state.lists[blockIdx.x];
  const int end = list.begin + list.count;
  for (int start = list.begin; start < end; start += kThreads) {
    if (__syncthreads_and(T < 0.0f)) break;
    const int count = end - start < kThreads ? end - start : kThreads;
    if (thread < count) {
      const int32_t item = state.entries[start + thread].item;
      records[thread] = state.records[item];
      const float* color = colors + (item - at.b * s.n) * D;
#pragma unroll
      for (int d = 0; d < kBound; ++d) {
        if (d < D) shades[thread * kShade + d] = color[d];
      }
    }
    __syncthreads();
    for (int first = 0; first < count; first += 32) {
      if (__all_sync(kAllLanes, T < 0.0f)) break;
      const int mine = first + lane;
      const bool touched =
          mine < count && touches_patch(records[mine].u, records[mine].v, records[mine].hx,
                                        records[mine].hy, at.left, at.top);
      unsigned mask = __ballot_sync(kAllLanes, touched);
      while (mask) {
        const int j = first + __ffs(mask) - 1;
        mask &= mask - 1;
        const Record r = records[j];
        const Hit<Scalar> h = hit_at(r, r.u - at.x, r.v - at.y, T);
        T = h.T;
#pragma unroll
        for (int d = 0; d < kBound; ++d) {
          if (d < D) sums[d] = fmaf(h.weight, shades[j * kShade + d], sums[d]);
        }
      }
    }
  }
  if (!at.inside) return;
  const float left = fabsf(T), *background = background_.at(at.b);
  const int64_t pixel = at.b * s.width * s.height + at.pixel;
  alpha[pixel] = 1.0f - left;
#pragma unroll
  for (int d = 0; d < kBound; ++d) {
    if (d < D) image[pixel * D + d] = sums[d] + left * background[d];
  }
}

// Front to back again, so that every skip and stop is the forward's. `behind` holds v . (what is
// still behind, background included) - v_alpha T_final, so that dL/dalpha_i = T_i (c_i . v) -
// behind_i / (1 - alpha_i) without a division chain in T. An entry's sums over a patch are sums of
// q = -dL/dsigma times 1, dx, dy, dx^2, dx dy, dy^2, then those of the colours.
template <int kBound>
__global__ void __launch_bounds__(kThreads)
    blend_vjp_kernel(Sizes s, State state, const __grid_constant__ Batched<float> colors_,
                     BlendGradIn in) {
  constexpr int kSums = kSlotHead + kBound, kHeld = (kSums + 31) / 32;
  constexpr int kShade = shade_stride(kBound);
  __shared__ Record records[32];
  alignas(16) __shared__ float shades[32 * kShade];
  __shared__ uint32_t slots[32];
  __shared__ unsigned hits[kWarps];  // which entries have sums of a warp
  __shared__ float shares[kWarps][32][kSums];
  const int D = channels_of<kBound>(s), stride = kSlotHead + D;
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const Place at = place_of(s);
  const float* colors = colors_.at(at.b);
  int held[kHeld];
#pragma unroll
  for (int k = 0; k < kHeld; ++k) held[k] = scatter_index(kSums, lane, k);

  float T = at.inside ? 1.0f : -1.0f, behind = 0.0f, left = 0.0f, v[kBound];
#pragma unroll
  for (int d = 0; d < kBound; ++d) v[d] = 0.0f;
  if (at.inside) {
    const float *v_image = in.picture.v_image.at(at.b) + at.pixel * D,
                *image = in.picture.image.at(at.b) + at.pixel * D;
    left = 1.0f - in.picture.alpha.at(at.b)[at.pixel];
    behind = -left * in.picture.v_alpha.at(at.b)[at.pixel];
#pragma unroll
    for (int d = 0; d < kBound; ++d) {
      if (d < D) v[d] = v_image[d], behind += v[d] * image[d];
    }
  }
#pragma unroll
  for (int d = 0; d < kBound; ++d) {  // the tile's share of the background's gradient
    const float sum = warp_sum(left * v[d]);
    if (lane == 0) shares[warp][0][d] = sum;
  }
  __syncthreads();
  if (thread < D) {
    float sum = 0.0f;
    for (int w = 0; w < kWarps; ++w) sum += shares[w][0][thread];
    in.tile_sums[static_cast<int64_t>(blockIdx.x) * D + thread] = sum;
  }

  const List list = state.lists[blockIdx.x];
  const int end = list.begin + list.count;
  int start = list.begin;
  for (; start < end; start += 32) {
    if (__syncthreads_and(T < 0.0f)) break;
    const int count = end - start < 32 ? end - start : 32;
    const int mine = thread / 8, part = thread % 8;  // 8 threads stage an entry
    if (mine < count) {
      const Entry entry = state.entries[start + mine];
      const float* record = reinterpret_cast<const float*>(state.records + entry.item);
      reinterpret_cast<float*>(records + mine)[part] = record[part];
      const float* color = colors + (entry.item - at.b * s.n) * D;
      for (int d = part; d < D; d += 8) shades[mine * kShade + d] = color[d];
      if (part == 0) slots[mine] = entry.slot;
    }
    __syncthreads();
    const bool touched =
        lane < count && touches_patch(records[lane].u, records[lane].v, records[lane].hx,
                                      records[lane].hy, at.left, at.top);
    unsigned mask = __ballot_sync(kAllLanes, touched), hit_mask = 0;
    while (mask) {
      const int j = __ffs(mask) - 1;
      mask &= mask - 1;
      const Record r = records[j];
      const float dx = r.u - at.x, dy = r.v - at.y;
      const Hit<Scalar> h = hit_at(r, dx, dy, T);
      const float before = T;
      T = h.T;
      if (!__any_sync(kAllLanes, h.weight > 0.0f)) continue;
      float cv = 0.0f;
#pragma unroll
      for (int d = 0; d < kBound; ++d) {
        if (d < D) cv = fmaf(v[d], shades[j * kShade + d], cv);
      }
      behind -= h.weight * cv;
      float q = (before * cv - quotient(behind, 1.0f - h.alpha)) * h.raw;
      // The clamp has zero slope; skipped and stopped pixels take no part.
      q = h.raw > kAlphaMax || !(h.weight > 0.0f) ? 0.0f : q;
      float sums[kSums] = {q, q * dx, q * dy, q * dx * dx, q * dx * dy, q * dy * dy};
#pragma unroll
      for (int d = 0; d < kBound; ++d) sums[kSlotHead + d] = h.weight * v[d];
      reduce_scatter<kSums>(sums, lane);
#pragma unroll
      for (int k = 0; k < kHeld; ++k) {
        if (held[k] >= 0) shares[warp][j][held[k]] = sums[k];
      }
      hit_mask |= 1u << j;
    }
    if (lane == 0) hits[warp] = hit_mask;
    __syncthreads();
    for (int k = thread; k < count * stride; k += kThreads) {
      const int j = k / stride, c = k % stride;
      float sum = 0.0f;
      for (int w = 0; w < kWarps; ++w) {
        if (hits[w] >> j & 1) sum += shares[w][j][c];
      }
      in.slot_sums[static_cast<int64_t>(slots[j]) * stride + c] = sum;
    }
  }
  for (int64_t k = thread; k < static_cast<int64_t>(end - start) * stride; k += kThreads) {
    const int64_t slot = state.entries[start + k / stride].slot;
    in.slot_sums[slot * stride + k % stride] = 0.0f;
  }
}

// The background's gradient for channel `sum % D` of image `sum / D`, by a warp.
__device__ __forceinline__ void sum_background(const Sizes& s, const float* tile_sums, int64_t sum,
                                               float* v_background) {
  if (sum >= s.batch * s.channels) return;  // the whole warp
  const int64_t b = sum / s.channels, d = sum % s.channels, tiles = s.tiles() / s.batch;
  float total = 0.0f;
  for (int64_t t = threadIdx.x % 32; t < tiles; t += 32)
    total += tile_sums[(b * tiles + t) * s.channels + d];
  total = warp_sum(total);
  if (threadIdx.x % 32 == 0) v_background[sum] = total;
}

// Sums each Gaussian's slots, nearest tile row first, and turns them into gradients. The blocks
// behind the Gaussians' sum the background's.
__global__ void __launch_bounds__(kThreads)
    gather_kernel(Sizes s, State state, const float* slot_sums, const float* tile_sums,
                  BlendGradOut out) {
  const int64_t blocks = (s.items() * kGroup + kThreads - 1) / kThreads;
  if (blockIdx.x >= blocks) {
    const int64_t sum = (blockIdx.x - blocks) * kWarps + threadIdx.x / 32;
    return sum_background(s, tile_sums, sum, out.v_background);
  }
  constexpr int kHeld = (kSlotHead + kMaxChannels + kGroup - 1) / kGroup;
  const int64_t item = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kGroup;
  const int lane = threadIdx.x % kGroup, D = static_cast<int>(s.channels), stride = kSlotHead + D;
  const bool there = item < s.items();
  const Run run = there ? state.runs[item] : Run{0, 0};
  float total[kHeld] = {};
  for (uint32_t k = 0; k < run.count; ++k) {
    const float* sums = slot_sums + (static_cast<int64_t>(run.begin) + k) * stride;
#pragma unroll
    for (int m = 0; m < kHeld; ++m) {
      if (lane + m * kGroup < stride) total[m] += sums[lane + m * kGroup];
    }
  }
  const float qx = __shfl_sync(kAllLanes, total[0], 1, kGroup);
  const float qy = __shfl_sync(kAllLanes, total[0], 2, kGroup);
  if (!there) return;
  Record r = {0, 0, 0, 0, 0, 1, 0, 0};
  if (run.count > 0) r = state.records[item];
  float* conic = out.v_conics + 3 * item;
  if (lane == 0) out.v_opacities[item] = total[0] / r.opacity;
  if (lane == 1) out.v_means2d[2 * item] = -(2.0f * r.half_A * qx + r.B * qy);
  if (lane == 2) out.v_means2d[2 * item + 1] = -(r.B * qx + 2.0f * r.half_C * qy);
  if (lane == 3) conic[0] = -0.5f * total[0];
  if (lane == 4) conic[1] = -total[0];
  if (lane == 5) conic[2] = -0.5f * total[0];
#pragma unroll
  for (int m = 0; m < kHeld; ++m) {
    const int d = lane + m * kGroup - kSlotHead;
    if (d >= 0 && d < D) out.v_colors[item * D + d] = total[m];
  }
}

template <typename Visit>
void with_bound(int64_t channels, Visit&& visit) {
  switch (channels) {
    case 3:
      return visit(std::integral_constant<int, 3>{});
    case 4:
      return visit(std::integral_constant<int, 4>{});
    case 5:
      return visit(std::integral_constant<int, 5>{});
    default:
      return channels <= 8 ? visit(std::integral_constant<int, 8>{})
                           : visit(std::integral_constant<int, kMaxChannels>{});
  }
}

}  // namespace

cudaError_t blend(cudaStream_t stream, const Sizes& s, const State& state,
                  const Batched<float>& colors, const Batched<float>& background, float* image,
                  float* alpha) {
  if (s.batch == 0) return cudaSuccess;
  with_bound(s.channels, [&](auto bound) {
    FG_LAUNCH(blend_kernel<decltype(bound)::value>, static_cast<unsigned>(s.tiles()), kThreads,
              stream, s, state, colors, background, image, alpha);
  });
  return cudaGetLastError();
}

cudaError_t blend_vjp(cudaStream_t stream, const Sizes& s, const State& state,
                      const Batched<float>& colors, const BlendGradIn& in,
                      const BlendGradOut& out) {
  if (s.batch == 0) return cudaSuccess;
  with_bound(s.channels, [&](auto bound) {
    FG_LAUNCH(blend_vjp_kernel<decltype(bound)::value>, static_cast<unsigned>(s.tiles()), kThreads,
              stream, s, state, colors, in);
  });
  const unsigned gathers = blocks_for(s.items() * kGroup, kThreads);
  FG_LAUNCH(gather_kernel, gathers + blocks_for(s.batch * s.channels, kWarps), kThreads, stream, s,
            state, in.slot_sums, in.tile_sums, out);
  return cudaGetLastError();
}

}  // namespace fg
