// Which Gaussians each tile draws, near to far, for all images at once: sort by depth, give every
// (tile, Gaussian) pair a slot in that order as long as there are slots, sort the slots by tile.
// Both sorts are stable, so a tile's list keeps the order of depth, and ties that of the input.
#include "cuda/kernels.h"
#include "cuda/radix_sort.cuh"
#include "cuda/warp.cuh"

namespace fg {
namespace {

constexpr int kThreads = 256;
constexpr int32_t kAlone = 16;  // pairs that a thread writes by itself; above, its warp helps
constexpr int32_t kMost = 0x7FFFFFFF;

// Record, tiles and depth key of every item, and the pairs that each image needs. Also clears the
// lists.
__global__ void __launch_bounds__(kThreads)
    classify_kernel(Sizes s, Splats in, BinWork work, State state, Counts counts, Sort depths) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, b = blockIdx.y;
  const int64_t step = static_cast<int64_t>(gridDim.x) * gridDim.y * kThreads;
  for (int64_t t = (b * gridDim.x + blockIdx.x) * kThreads + threadIdx.x; t < s.tiles(); t += step)
    state.lists[t] = {kMost, 0};
  if (i == 0) counts.needed[b] = 0, counts.overflow[b] = 0;
  TileRect rect = {0, 0, 0, 0};
  if (i < s.n) {
    Record r = {0, 0, 0, 0, 0, 0, 0, 0};
    uint32_t key = kCulled;
    const int32_t* radii = in.radii.at(b) + 2 * i;
    if (radii[0] > 0 && radii[1] > 0) {
      const float *m = in.means2d.at(b) + 2 * i, *q = in.conics.at(b) + 3 * i;
      const float *color = in.colors.at(b) + s.channels * i, depth = in.depths.at(b)[i];
      r = {m[0], m[1], 0.5f * q[0], q[1], 0.5f * q[2], in.opacities.at(b)[i], 0.0f, 0.0f};
      bool ok = Scalar::finite(r.u) && Scalar::finite(r.v) && Scalar::finite(depth);
      for (int64_t d = 0; d < s.channels; ++d) ok = ok && Scalar::finite(color[d]);
      half_extents<Scalar>(q[0], q[1], q[2], r.opacity, &r.hx, &r.hy);
      TileRect found;
      ok = ok && r.hx > 0 && r.hy > 0 &&
           tile_span(r.u, r.hx, static_cast<int>(s.width), &found.x0, &found.x1) &&
           tile_span(r.v, r.hy, static_cast<int>(s.height), &found.y0, &found.y1);
      if (ok) rect = found, key = depth_key(depth);
    }
    const int64_t item = b * s.n + i;
    state.records[item] = r;
    work.rects[item] = rect;
    work.keys[0][item] = key;
    count_key(depths, item, key);
  }
  const int lane = threadIdx.x % 32;
  const auto pairs = inclusive_sum(static_cast<unsigned long long>(rect.count()), lane);
  if (lane == 31 && pairs > 0) atomicAdd(work.image_pairs + b, pairs);
}

// Sums the pairs of each block of depth positions, for emit_kernel's.
struct SumPairs {
  const TileRect* rects;
  unsigned long long* block_pairs;
  static constexpr bool kKeys = false, kValues = true;
  __device__ void operator()(int64_t position, uint32_t, uint32_t item) const {
    const int32_t count = rects[item].count();
    if (count > 0) {
      atomicAdd(block_pairs + position / kEmitThreads, static_cast<unsigned long long>(count));
    }
  }
};

// Where the pairs before a thread's own end, all blocks' before included. `count`: its own.
__device__ __forceinline__ unsigned long long pairs_before(const unsigned long long* block_pairs,
                                                           int32_t count) {
  __shared__ unsigned long long before[kEmitThreads / 32], own[kEmitThreads / 32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  unsigned long long blocks = 0;
  for (unsigned k = threadIdx.x; k < blockIdx.x; k += kEmitThreads) blocks += block_pairs[k];
  blocks = inclusive_sum(blocks, lane);
  const auto mine = inclusive_sum(static_cast<unsigned long long>(count), lane);
  if (lane == 31) before[warp] = blocks, own[warp] = mine;
  __syncthreads();
  unsigned long long sum = mine - count;
  for (int w = 0; w < kEmitThreads / 32; ++w) sum += before[w] + (w < warp ? own[w] : 0);
  return sum;
}

// Writes the pairs of the Gaussian at each depth position into its slots.
__global__ void __launch_bounds__(kEmitThreads)
    emit_kernel(Sizes s, const uint32_t* order, BinWork work, State state, Counts counts,
                Sort tiles) {
  const int64_t p = static_cast<int64_t>(blockIdx.x) * kEmitThreads + threadIdx.x;
  const int lane = threadIdx.x % 32;
  const int32_t tiles_x = static_cast<int32_t>(s.tiles_x());
  const int32_t tiles_an_image = static_cast<int32_t>(s.tiles_x() * s.tiles_y());
  int32_t item = 0, count = 0;
  TileRect rect = {0, 0, 0, 0};
  if (p < s.items()) {
    item = static_cast<int32_t>(order[p]);
    rect = work.rects[item];
    count = rect.count();
  }
  const unsigned long long wanted = pairs_before(work.block_pairs, count);
  const unsigned long long pool = static_cast<unsigned long long>(s.pool());
  const int64_t left = static_cast<int64_t>(wanted < pool ? pool - wanted : 0);
  const uint32_t begin = static_cast<uint32_t>(wanted < pool ? wanted : pool);
  if (threadIdx.x == kEmitThreads - 1 && blockIdx.x == gridDim.x - 1) {
    *work.pairs = begin + static_cast<uint32_t>(left < count ? left : count);
  }
  if (p < s.batch) {
    const unsigned long long needed = work.image_pairs[p];
    counts.needed[p] = needed < kMost ? static_cast<int32_t>(needed) : kMost;
  }
  if (left < count) {
    counts.overflow[item / s.n] = 1;  // whoever writes it, writes the same
    count = static_cast<int32_t>(left);
  }
  if (p < s.items()) state.runs[item] = {begin, static_cast<uint32_t>(count)};

  const auto write = [&](int32_t owner, uint32_t first, const TileRect& r, int32_t k) {
    const int32_t tile =
        owner / static_cast<int32_t>(s.n) * tiles_an_image + tile_in(r, k, tiles_x);
    work.tile_keys[0][first + k] = static_cast<uint32_t>(tile);
    work.owners[first + k] = static_cast<uint32_t>(owner);
    count_key(tiles, first + k, static_cast<uint32_t>(tile));
    atomicAdd(&state.lists[tile].count, 1);
  };
  if (count <= kAlone) {
    for (int32_t k = 0; k < count; ++k) write(item, begin, rect, k);
  }
  unsigned large = __ballot_sync(kAllLanes, count > kAlone);
  while (large) {
    const int source = __ffs(large) - 1;
    large &= large - 1;
    const int32_t owner = __shfl_sync(kAllLanes, item, source);
    const int32_t total = __shfl_sync(kAllLanes, count, source);
    const uint32_t first = __shfl_sync(kAllLanes, begin, source);
    const TileRect r = work.rects[owner];
    for (int32_t k = lane; k < total; k += 32) write(owner, first, r, k);
  }
}

// The sorted pairs as entries, and where each tile's list begins.
struct Link {
  const uint32_t* owners;
  Entry* entries;
  List* lists;
  static constexpr bool kKeys = false, kValues = false;
  __device__ void operator()(int64_t position, uint32_t tile, uint32_t slot) const {
    entries[position] = {static_cast<int32_t>(owners[slot]), slot};
    atomicMin(&lists[tile].begin, static_cast<int>(position));
  }
};

}  // namespace

cudaError_t bin(cudaStream_t stream, const Sizes& s, const Splats& in, const BinWork& w,
                const State& state, const Counts& counts) {
  if (s.batch == 0) return cudaSuccess;
  const Sort depths = {{w.keys[0], w.keys[1]},
                       {w.order[0], w.order[1]},
                       w.depth_counts,
                       w.totals[0],
                       nullptr,
                       s.items(),
                       32,
                       true};
  const Sort tiles = {{w.tile_keys[0], w.tile_keys[1]},
                      {w.slots[0], w.slots[1]},
                      w.tile_counts,
                      w.totals[1],
                      w.pairs,
                      s.pool(),
                      bits_for(static_cast<uint32_t>(s.tiles() - 1)),
                      true};
  const cudaError_t error =
      cudaMemsetAsync(w.depth_counts, 0, w.zeros_before_tiles + tiles.count_bytes(), stream);
  if (error != cudaSuccess) return error;
  // At least one block an image, so that the lists are cleared even where there are no Gaussians.
  const dim3 grid(s.n > 0 ? blocks_for(s.n, kThreads) : 1, static_cast<unsigned>(s.batch));
  FG_LAUNCH(classify_kernel, grid, kThreads, stream, s, in, w, state, counts, depths);
  if (s.items() == 0) return cudaGetLastError();
  sort_pairs(stream, depths, SumPairs{w.rects, w.block_pairs});
  FG_LAUNCH(emit_kernel, blocks_for(s.items(), kEmitThreads), kEmitThreads, stream, s,
            w.order[depths.passes() % 2], w, state, counts, tiles);
  sort_pairs(stream, tiles, Link{w.owners, state.entries, state.lists});
  return cudaGetLastError();
}

}  // namespace fg
