// Which Gaussians each tile draws, near to far, for all images at once: sort by depth, give every
// (tile, Gaussian) pair a slot in that order as long as there are slots, sort the slots by tile.
// Both sorts are stable, so a tile's list keeps the order of depth, and ties that of the input.
#include "cuda/kernels.h"
#include "cuda/warp.cuh"

namespace fg {
namespace {

constexpr int kThreads = 256;
constexpr int kTallyThreads = 1024;
constexpr int32_t kAlone = 16;  // pairs that a thread writes by itself; above, its warp helps

// Record, tiles and depth key of every item; also fills the pool with the sentinel tile.
__global__ void __launch_bounds__(kThreads)
    classify_kernel(Sizes s, Splats in, BinWork work, State state) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, b = blockIdx.y;
  const int64_t step = static_cast<int64_t>(gridDim.x) * gridDim.y * kThreads;
  const uint32_t sentinel = static_cast<uint32_t>(s.tiles());
  for (int64_t p = (b * gridDim.x + blockIdx.x) * kThreads + threadIdx.x; p < s.pool(); p += step) {
    work.tile_keys[0][p] = sentinel;
    work.slots[0][p] = static_cast<uint32_t>(p);
    work.owners[p] = 0;
  }
  if (i >= s.n) return;
  Record r = {0, 0, 0, 0, 0, 0, 0, 0};
  TileRect rect = {0, 0, 0, 0};
  uint32_t key = kCulled;
  const int32_t* radii = in.radii.at(b) + 2 * i;
  if (radii[0] > 0 && radii[1] > 0) {
    const float *m = in.means2d.at(b) + 2 * i, *q = in.conics.at(b) + 3 * i;
    const float *color = in.colors.at(b) + s.channels * i, depth = in.depths.at(b)[i];
    r = {m[0], m[1], q[0], q[1], q[2], in.opacities.at(b)[i], 0.0f, 0.0f};
    bool ok = Scalar::finite(r.u) && Scalar::finite(r.v) && Scalar::finite(depth);
    for (int64_t d = 0; d < s.channels; ++d) ok = ok && Scalar::finite(color[d]);
    half_extents<Scalar>(r.A, r.B, r.C, r.opacity, &r.hx, &r.hy);
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
  work.order[0][item] = static_cast<uint32_t>(item);
}

// Writes the pairs of the Gaussian at each depth position into its slots.
__global__ void __launch_bounds__(kThreads)
    emit_kernel(Sizes s, const uint32_t* order, BinWork work, State state) {
  const int64_t p = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int lane = threadIdx.x % 32;
  const int32_t tiles_x = static_cast<int32_t>(s.tiles_x());
  const int32_t tiles_an_image = static_cast<int32_t>(s.tiles_x() * s.tiles_y());
  int32_t item = 0, count = 0;
  uint32_t begin = 0;
  TileRect rect = {0, 0, 0, 0};
  if (p < s.items()) {
    item = static_cast<int32_t>(order[p]);
    rect = work.rects[item];
    begin = work.offsets[p];
    const int64_t left = s.pool() - static_cast<int64_t>(begin);
    count = rect.count();
    count = left < count ? static_cast<int32_t>(left < 0 ? 0 : left) : count;
    state.runs[item] = {begin, static_cast<uint32_t>(count)};
  }
  const auto write = [&](int32_t owner, uint32_t first, const TileRect& r, int32_t k) {
    const int32_t tile =
        owner / static_cast<int32_t>(s.n) * tiles_an_image + tile_in(r, k, tiles_x);
    work.tile_keys[0][first + k] = static_cast<uint32_t>(tile);
    work.owners[first + k] = static_cast<uint32_t>(owner);
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

// The sorted pairs as entries, and where each tile's list begins. A search needs no zeros to start
// from, and lists of no and of one entry are no special cases.
__global__ void __launch_bounds__(kThreads)
    link_kernel(Sizes s, const uint32_t* tile_keys, const uint32_t* slots, const uint32_t* owners,
                State state) {
  const int64_t p = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (p < s.pool()) state.entries[p] = {static_cast<int32_t>(owners[slots[p]]), slots[p]};
  if (p <= s.tiles()) {
    state.tile_begin[p] =
        lower_bound(tile_keys, static_cast<int32_t>(s.pool()), static_cast<uint32_t>(p));
  }
}

// One block an image: how many pairs it needs and how many found no slot.
__global__ void __launch_bounds__(kTallyThreads)
    tally_kernel(int64_t n, const TileRect* rects, const Run* runs, Counts counts) {
  __shared__ unsigned long long needed[kTallyThreads], kept[kTallyThreads];
  const int64_t b = blockIdx.x;
  unsigned long long my_needed = 0, my_kept = 0;
  for (int64_t i = threadIdx.x; i < n; i += kTallyThreads) {
    my_needed += rects[b * n + i].count();
    my_kept += runs[b * n + i].count;
  }
  const int thread = threadIdx.x;
  needed[thread] = my_needed, kept[thread] = my_kept;
  for (int half = kTallyThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (thread < half) {
      needed[thread] += needed[thread + half];
      kept[thread] += kept[thread + half];
    }
  }
  if (thread == 0) {
    const unsigned long long most = 0x7FFFFFFF, dropped = needed[0] - kept[0];
    counts.needed[b] = static_cast<int32_t>(needed[0] < most ? needed[0] : most);
    counts.dropped[b] = static_cast<int32_t>(dropped < most ? dropped : most);
  }
}

}  // namespace

cudaError_t bin(cudaStream_t stream, const Sizes& s, const Splats& in, const BinWork& work,
                const State& state, const Counts& counts) {
  if (s.batch == 0) return cudaSuccess;
  const unsigned images = static_cast<unsigned>(s.batch);
  // At least one block an image, so that the pool is filled even where there are no Gaussians.
  const dim3 grid(s.n > 0 ? blocks_for(s.n, kThreads) : 1, images);
  FG_LAUNCH(classify_kernel, grid, kThreads, stream, s, in, work, state);

  int by_depth = 0, by_tile = 0;
  cudaError_t error = sort_pairs(stream, work.temp, work.temp_bytes, work.keys, work.order,
                                 s.items(), 32, &by_depth);
  if (error != cudaSuccess) return error;
  const uint32_t* order = work.order[by_depth];
  error =
      scan_counts(stream, work.temp, work.temp_bytes, work.rects, order, work.offsets, s.items());
  if (error != cudaSuccess) return error;
  if (s.items() > 0) {
    FG_LAUNCH(emit_kernel, blocks_for(s.items(), kThreads), kThreads, stream, s, order, work,
              state);
  }
  error = sort_pairs(stream, work.temp, work.temp_bytes, work.tile_keys, work.slots, s.pool(),
                     bits_for(static_cast<uint32_t>(s.tiles())), &by_tile);
  if (error != cudaSuccess) return error;
  const int64_t most = s.pool() > s.tiles() + 1 ? s.pool() : s.tiles() + 1;
  FG_LAUNCH(link_kernel, blocks_for(most, kThreads), kThreads, stream, s, work.tile_keys[by_tile],
            work.slots[by_tile], work.owners, state);
  FG_LAUNCH(tally_kernel, images, kTallyThreads, stream, s.n, work.rects, state.runs, counts);
  return cudaGetLastError();
}

}  // namespace fg
