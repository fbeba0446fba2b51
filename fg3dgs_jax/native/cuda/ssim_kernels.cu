// 1 - SSIM with its gradient in one launch. A block computes a tile of one channel: what lies
// between is blurred in shared memory and never written out. The gradient at a pixel reads the map
// half a window around it, and the map reads the pictures half a window farther.
#include "core/ssim_math.h"
#include "cuda/ssim_kernels.h"
#include "cuda/warp.cuh"

namespace fg {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
// Sizes of the map and of the pictures that a tile needs. Strides are odd, so that neither a row
// nor a column of threads meets in one bank.
constexpr int kMapColumns = kSsimColumns + 2 * kSsimHalf, kMapRows = kSsimRows + 2 * kSsimHalf;
constexpr int kColumns = kMapColumns + 2 * kSsimHalf, kRows = kMapRows + 2 * kSsimHalf;
constexpr int kStride = kColumns | 1, kMapStride = kMapColumns | 1, kTileStride = kSsimColumns | 1;
// How many neighbouring results a thread computes in each of the four passes.
constexpr int kAlongFields = 7, kDownFields = 5, kAlongMap = 4, kDownMap = 4;
static_assert(kMapColumns % kAlongFields == 0 && kMapRows % kDownFields == 0, "whole strips");
static_assert(kSsimColumns % kAlongMap == 0 && kSsimRows % kDownMap == 0, "whole strips");
static_assert(kRows * (kMapColumns / kAlongFields) <= kThreads, "a strip a thread");
static_assert(kMapColumns * (kMapRows / kDownFields) <= kThreads, "a strip a thread");
static_assert(kMapRows * (kSsimColumns / kAlongMap) <= kThreads, "a strip a thread");

// The window at kCount places side by side, of which the first begins with taps[0].
template <int kCount>
__device__ __forceinline__ void blur(const float (&taps)[kCount + kSsimTaps - 1],
                                     float (&out)[kCount]) {
  constexpr float kWeights[] = {kSsimWindow[0], kSsimWindow[1], kSsimWindow[2],
                                kSsimWindow[3], kSsimWindow[4], kSsimWindow[5]};
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    float sum = kWeights[0] * (taps[i] + taps[i + 10]);
#pragma unroll
    for (int k = 1; k < kSsimHalf; ++k)
      sum = fmaf(kWeights[k], taps[i + k] + taps[i + 10 - k], sum);
    out[i] = fmaf(kWeights[kSsimHalf], taps[i + kSsimHalf], sum);
  }
}

template <int kCount>
__device__ __forceinline__ void blur(const float* from, int step, float (&out)[kCount]) {
  float taps[kCount + kSsimTaps - 1];
#pragma unroll
  for (int k = 0; k < kCount + kSsimTaps - 1; ++k) taps[k] = from[k * step];
  blur<kCount>(taps, out);
}

// The rows and columns of a tile in which the pictures differ: the first and minus the last, so
// that boxes are joined by minima. Farther than half a window from it SSIM is 1 and its derivatives
// are 0, where rounding would leave noise.
struct Box {
  int top, minus_bottom, left, minus_right;
};

__device__ __forceinline__ Box joined(const Box& a, const Box& b) {
  return {min(a.top, b.top), min(a.minus_bottom, b.minus_bottom), min(a.left, b.left),
          min(a.minus_right, b.minus_right)};
}

template <int kCount>
__device__ __forceinline__ void store(const float (&from)[kCount], float* to) {
#pragma unroll
  for (int k = 0; k < kCount; ++k) to[k] = from[k];
}

__global__ void __launch_bounds__(kThreads)
    ssim_kernel(SsimPictures p, SsimResults out, float scale) {
  // Pictures, later the derivatives of the map; blurred along rows: fields, later derivatives.
  __shared__ float wide[2 * kRows * kStride], along[4 * kRows * kMapStride];
  __shared__ float shares[kWarps];
  __shared__ Box boxes[kWarps];
  static_assert(3 * kMapRows * kMapStride <= 2 * kRows * kStride, "the map's take their place");
  const int thread = threadIdx.x, C = static_cast<int>(p.channels);
  const int tiles_x = static_cast<int>((p.width + kSsimColumns - 1) / kSsimColumns);
  const int channel = blockIdx.x % C, tile = blockIdx.x / C;
  const int64_t b = blockIdx.y, picture = b * p.height * p.width * C + channel;
  const int height = static_cast<int>(p.height), width = static_cast<int>(p.width);
  const int left = tile % tiles_x * kSsimColumns, top = tile / tiles_x * kSsimRows;
  const auto inside = [&](int row, int column) {
    return row >= 0 && row < height && column >= 0 && column < width;
  };
  const auto place = [&](int row, int column) {
    return picture + (static_cast<int64_t>(row) * width + column) * C;
  };

  float *xs = wide, *ys = wide + kRows * kStride;
  Box box = {kRows, kRows, kColumns, kColumns};
  for (int k = thread; k < kRows * kColumns; k += kThreads) {
    const int r = k / kColumns, c = k % kColumns;
    const int row = top - 2 * kSsimHalf + r, column = left - 2 * kSsimHalf + c;
    float x = 0.0f, y = 0.0f;
    if (inside(row, column)) {
      const int64_t at = place(row, column);
      x = p.x[at], y = p.y[at];
      if (Scalar::bits(x) != Scalar::bits(y)) box = joined(box, {r, -r, c, -c});
    }
    xs[r * kStride + c] = x, ys[r * kStride + c] = y;
  }
  const int64_t slot = b * gridDim.x + blockIdx.x;
  for (int offset = 16; offset > 0; offset /= 2) {
    box = joined(box, {__shfl_xor_sync(kAllLanes, box.top, offset),
                       __shfl_xor_sync(kAllLanes, box.minus_bottom, offset),
                       __shfl_xor_sync(kAllLanes, box.left, offset),
                       __shfl_xor_sync(kAllLanes, box.minus_right, offset)});
  }
  if (thread % 32 == 0) boxes[thread / 32] = box;
  __syncthreads();
  for (int w = 0; w < kWarps; ++w) box = joined(box, boxes[w]);
  if (box.top == kRows) {
    for (int k = thread; k < kSsimRows * kSsimColumns; k += kThreads) {
      const int row = top + k / kSsimColumns, column = left + k % kSsimColumns;
      if (inside(row, column)) out.v_x[place(row, column)] = 0.0f;
    }
    if (thread == 0) out.tile_sums[slot] = 0.0f;
    return;
  }

  constexpr int kField = kRows * kMapStride;
  if (thread < kRows * (kMapColumns / kAlongFields)) {
    constexpr int kTaps = kAlongFields + kSsimTaps - 1;
    const int r = thread % kRows, c = thread / kRows * kAlongFields;
    float x[kTaps], y[kTaps], taps[kTaps], sums[kAlongFields];
#pragma unroll
    for (int k = 0; k < kTaps; ++k) x[k] = xs[r * kStride + c + k], y[k] = ys[r * kStride + c + k];
    float* to = along + r * kMapStride + c;
    blur<kAlongFields>(x, sums), store(sums, to);
    blur<kAlongFields>(y, sums), store(sums, to + kField);
#pragma unroll
    for (int k = 0; k < kTaps; ++k) taps[k] = fmaf(x[k], x[k], y[k] * y[k]);
    blur<kAlongFields>(taps, sums), store(sums, to + 2 * kField);
#pragma unroll
    for (int k = 0; k < kTaps; ++k) taps[k] = x[k] * y[k];
    blur<kAlongFields>(taps, sums), store(sums, to + 3 * kField);
  }
  __syncthreads();

  constexpr int kPartial = kMapRows * kMapStride;
  float *partials = wide, sum = 0.0f;
  if (thread < kMapColumns * (kMapRows / kDownFields)) {
    const int c = thread % kMapColumns, r = thread / kMapColumns * kDownFields;
    float fields[4][kDownFields];
#pragma unroll
    for (int f = 0; f < 4; ++f) {
      blur<kDownFields>(along + f * kField + r * kMapStride + c, kMapStride, fields[f]);
    }
#pragma unroll
    for (int k = 0; k < kDownFields; ++k) {
      const int row = top - kSsimHalf + r + k, column = left - kSsimHalf + c;
      // The map begins half a window, which is also how far from the box it reaches.
      const bool reached = r + k >= box.top - 2 * kSsimHalf && r + k <= -box.minus_bottom &&
                           c >= box.left - 2 * kSsimHalf && c <= -box.minus_right;
      SsimPixel s = {0, 0, 0, 0};
      if (reached && inside(row, column))
        s = ssim_pixel(fields[0][k], fields[1][k], fields[2][k], fields[3][k]);
      const bool mine =
          row >= top && row < top + kSsimRows && column >= left && column < left + kSsimColumns;
      if (mine) sum += s.distance;
      float* to = partials + (r + k) * kMapStride + c;
      to[0] = s.v_mean, to[kPartial] = s.v_product, to[2 * kPartial] = s.v_square;
    }
  }
  sum = warp_sum(sum);
  if (thread % 32 == 0) shares[thread / 32] = sum;
  __syncthreads();

  constexpr int kBlurred = kMapRows * kTileStride;
  if (thread < kMapRows * (kSsimColumns / kAlongMap)) {
    const int r = thread % kMapRows, c = thread / kMapRows * kAlongMap;
#pragma unroll
    for (int k = 0; k < 3; ++k) {
      float sums[kAlongMap];
      blur<kAlongMap>(partials + k * kPartial + r * kMapStride + c, 1, sums);
      store(sums, along + k * kBlurred + r * kTileStride + c);
    }
  }
  if (thread == 0) {
    float whole = 0.0f;
    for (int w = 0; w < kWarps; ++w) whole += shares[w];
    out.tile_sums[slot] = whole;
  }
  __syncthreads();

  if (thread < kSsimColumns * (kSsimRows / kDownMap)) {
    const int c = thread % kSsimColumns, r = thread / kSsimColumns * kDownMap;
    float v[3][kDownMap];
#pragma unroll
    for (int k = 0; k < 3; ++k) {
      blur<kDownMap>(along + k * kBlurred + r * kTileStride + c, kTileStride, v[k]);
    }
#pragma unroll
    for (int k = 0; k < kDownMap; ++k) {
      if (!inside(top + r + k, left + c)) continue;
      const int64_t at = place(top + r + k, left + c);
      out.v_x[at] = scale * fmaf(p.y[at], v[1][k], fmaf(2.0f * p.x[at], v[2][k], v[0][k]));
    }
  }
}

// A block a picture.
__global__ void __launch_bounds__(kThreads)
    mean_kernel(int64_t tiles, const float* tile_sums, float scale, float* means) {
  __shared__ float shares[kWarps];
  const int64_t b = blockIdx.x;
  float sum = 0.0f;
  for (int64_t t = threadIdx.x; t < tiles; t += kThreads) sum += tile_sums[b * tiles + t];
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) shares[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    float whole = 0.0f;
    for (int w = 0; w < kWarps; ++w) whole += shares[w];
    means[b] = scale * whole;
  }
}

}  // namespace

cudaError_t ssim(cudaStream_t stream, const SsimPictures& p, const SsimResults& out) {
  if (p.count == 0) return cudaSuccess;
  const int64_t tiles = ssim_tiles(p.height, p.width, p.channels);
  const float scale = 1.0f / static_cast<float>(p.height * p.width * p.channels);
  const unsigned pictures = static_cast<unsigned>(p.count);
  const dim3 grid(static_cast<unsigned>(tiles), pictures);
  FG_LAUNCH(ssim_kernel, grid, kThreads, stream, p, out, -scale);
  FG_LAUNCH(mean_kernel, pictures, kThreads, stream, tiles, out.tile_sums, scale, out.distance);
  return cudaGetLastError();
}

}  // namespace fg
