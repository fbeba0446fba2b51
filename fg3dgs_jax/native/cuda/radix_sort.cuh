// A stable sort of 32-bit keys with their values, by digits from the lowest on. A block takes
// kSortTile keys, so that 50,000 keys already keep 25 processors busy. Each pass is one launch: it
// knows how many keys of each digit every block has, because the pass before counted them where it
// put them. Those counts are integers, so the order in which they are added changes nothing.
#pragma once

#include "cuda/kernels.h"
#include "cuda/warp.cuh"

namespace fg {

constexpr int kSortThreads = 256, kSortWarps = kSortThreads / 32;
constexpr int kSortItems = kSortTile / kSortThreads;  // keys a thread
constexpr int64_t kFusedRows = 256;  // of counts: above, a launch of its own sums them up
static_assert(kSortThreads == kSortDigits, "a thread a digit");

struct Sort {
  uint32_t *keys[2], *values[2];  // [n] each, the input in the first ones
  // [passes, rows, digits]: zeros, but the first pass's, which count_key has counted.
  uint32_t* counts;
  uint32_t* totals;       // [kSortDigits]
  const uint32_t* there;  // on the device: how many of the n keys there are; null: all
  int64_t n;
  int bits;                 // of the keys, the low ones
  bool values_are_indices;  // 0, 1, 2 ...: the input has none

  FG_HD_MEMBER int passes() const { return (bits + 7) / 8; }
  FG_HD_MEMBER int width() const { return (bits + passes() - 1) / passes(); }  // bits of a digit
  FG_HD_MEMBER int64_t pass_counts() const { return sort_rows(n) << width(); }
  size_t count_bytes() const { return 4 * static_cast<size_t>(passes() * pass_counts()); }
};

// Where the key at `position` is counted that has this digit.
__device__ __forceinline__ int64_t count_index(int64_t position, uint32_t digit, int width) {
  return (position / kSortTile << width) + digit;
}

__device__ __forceinline__ void count_key(const Sort& sort, int64_t position, uint32_t key) {
  const int width = sort.width();
  atomicAdd(sort.counts + count_index(position, key & ((1u << width) - 1), width), 1u);
}

// What is done with a sorted key; kKeys and kValues: whether they are also written out.
struct JustSort {
  static constexpr bool kKeys = true, kValues = true;
  __device__ void operator()(int64_t, uint32_t, uint32_t) const {}
};

__device__ __forceinline__ int64_t keys_there(const Sort& sort) {
  return sort.there ? static_cast<int64_t>(*sort.there) : sort.n;
}

// Turns the counts of each digit into sums over the blocks before. A warp a digit.
static __global__ void __launch_bounds__(kSortThreads) sum_rows_kernel(Sort sort, int pass) {
  const int lane = threadIdx.x % 32, width = sort.width();
  const int64_t digit = (static_cast<int64_t>(blockIdx.x) * kSortThreads + threadIdx.x) / 32;
  const int64_t rows = sort_rows(keys_there(sort));
  if (digit >> width) return;  // the whole warp
  uint32_t* counts = sort.counts + pass * sort.pass_counts() + digit;
  uint32_t total = 0;
  for (int64_t first = 0; first < rows; first += 32) {
    const bool there = first + lane < rows;
    const uint32_t count = there ? counts[(first + lane) << width] : 0;
    const uint32_t sum = inclusive_sum(count, lane);
    if (there) counts[(first + lane) << width] = total + sum - count;
    total += __shfl_sync(kAllLanes, sum, 31);
  }
  if (lane == 0) sort.totals[digit] = total;
}

template <class Placed>
__global__ void __launch_bounds__(kSortThreads)
    sort_kernel(Sort sort, int pass, bool summed, Placed placed) {
  // How many keys of each digit a warp had so far; later, where its first one goes.
  __shared__ uint32_t places[kSortWarps][kSortDigits];
  __shared__ uint32_t sums[kSortWarps];
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int width = sort.width(), shift = pass * width;
  const uint32_t mask = (1u << width) - 1;
  const int64_t n = keys_there(sort), first = static_cast<int64_t>(blockIdx.x) * kSortTile;
  if (first >= n) return;
  const bool last = pass + 1 == sort.passes();
  const bool odd = pass % 2;  // no index, which would put the pointers into local memory
  const uint32_t* keys = odd ? sort.keys[1] : sort.keys[0];
  const uint32_t* values = odd ? sort.values[1] : sort.values[0];
  uint32_t* to_keys = odd ? sort.keys[0] : sort.keys[1];
  uint32_t* to_values = odd ? sort.values[0] : sort.values[1];
  if (pass == 0 && sort.values_are_indices) values = nullptr;

  for (int d = lane; d < kSortDigits; d += 32) places[warp][d] = 0;
  __syncwarp();
  uint32_t key[kSortItems], rank[kSortItems];
  const int64_t begin = first + warp * (kSortTile / kSortWarps) + lane;
#pragma unroll
  for (int k = 0; k < kSortItems; ++k) key[k] = begin + 32 * k < n ? keys[begin + 32 * k] : 0;
#pragma unroll
  for (int k = 0; k < kSortItems; ++k) {
    const bool there = begin + 32 * k < n;
    const uint32_t digit = key[k] >> shift & mask;
    unsigned alike = __ballot_sync(kAllLanes, there);
    for (int bit = 0; bit < width; ++bit) {
      const bool set = digit >> bit & 1;
      const unsigned with = __ballot_sync(kAllLanes, set);
      alike &= set ? with : ~with;
    }
    const uint32_t before = places[warp][digit];
    rank[k] = before + __popc(alike & ((1u << lane) - 1));
    __syncwarp();
    if (there && __ffs(alike) - 1 == lane) places[warp][digit] = before + __popc(alike);
    __syncwarp();
  }

  // A thread a digit: keys of smaller digits, of blocks before, of warps before.
  uint32_t *counts = sort.counts + pass * sort.pass_counts(), total = 0, blocks_before = 0;
  if (thread <= static_cast<int>(mask)) {
    if (summed) {
      total = sort.totals[thread];
      blocks_before = counts[count_index(first, thread, width)];
    } else {
      const int rows = static_cast<int>(sort_rows(n)), row = static_cast<int>(blockIdx.x);
#pragma unroll 8
      for (int r = 0; r < rows; ++r) {
        const uint32_t count = counts[(r << width) + thread];
        total += count;
        if (r < row) blocks_before += count;
      }
    }
  }
  const uint32_t sum = inclusive_sum(total, lane);
  if (lane == 31) sums[warp] = sum;
  __syncthreads();
  uint32_t place = sum - total + blocks_before;
  for (int w = 0; w < warp; ++w) place += sums[w];
  for (int w = 0; w < kSortWarps; ++w) {
    const uint32_t count = places[w][thread];
    places[w][thread] = place;
    place += count;
  }
  __syncthreads();

#pragma unroll
  for (int k = 0; k < kSortItems; ++k) {
    const int64_t from = begin + 32 * k;
    if (from >= n) break;
    const uint32_t value = values ? values[from] : static_cast<uint32_t>(from);
    const uint32_t to = places[warp][key[k] >> shift & mask] + rank[k];
    if (!last || Placed::kKeys) to_keys[to] = key[k];
    if (!last || Placed::kValues) to_values[to] = value;
    if (last) {
      placed(static_cast<int64_t>(to), key[k], value);
    } else {
      const uint32_t next = key[k] >> (shift + width) & mask;
      atomicAdd(counts + sort.pass_counts() + count_index(to, next, width), 1u);
    }
  }
}

// Queues the passes; `placed(position, key, value)` is called for each pair in the last. Keys and
// values end in half `passes() % 2`.
template <class Placed>
void sort_pairs(cudaStream_t stream, const Sort& sort, const Placed& placed,
                int64_t fused_rows = kFusedRows) {
  const int64_t rows = sort_rows(sort.n);
  const bool summed = rows > fused_rows;
  const unsigned warps = 1u << sort.width();
  for (int pass = 0; pass < sort.passes() && rows > 0; ++pass) {
    if (summed) {
      FG_LAUNCH(sum_rows_kernel, blocks_for(32 * warps, kSortThreads), kSortThreads, stream, sort,
                pass);
    }
    FG_LAUNCH(sort_kernel<Placed>, static_cast<unsigned>(rows), kSortThreads, stream, sort, pass,
              summed, placed);
  }
}

}  // namespace fg
