// The tri-plane encoding on a GPU. The gradient of the tables adds without atomics: (point, plane,
// level) triples are sorted by cell, and a warp for each table entry sums the four cells around it
// in that order, so the same inputs give the same bits.
#include "cuda/encode_kernels.h"
#include "cuda/kernels.h"
#include "cuda/radix_sort.cuh"
#include "cuda/warp.cuh"

namespace fg {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ int64_t thread_id() {
  return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

__global__ void __launch_bounds__(kThreads)
    encode_kernel(Levels levels, const float* tables, const float* points, int64_t n,
                  float* features) {
  const int64_t k = thread_id();
  if (k >= n * levels.features()) return;
  const int feature = static_cast<int>(k % levels.features());
  const int plane = feature / levels.count, level = feature % levels.count;
  const Place place = locate(points + 3 * (k / levels.features()), plane, levels.bound);
  features[k] = place.inside ? interpolate(levels, tables, place, plane, level) : 0.0f;
}

__global__ void __launch_bounds__(kThreads) coords_kernel(Levels levels, EncodeGrad g, int64_t n) {
  const int64_t i = thread_id();
  if (i >= n) return;
  coords_gradient(levels, g.tables, g.points + 3 * i, g.v + i * levels.features(),
                  g.v_points + 3 * i);
}

// Key: the table index of the cell's first corner; past the tables' end for a place outside.
// Triples of one feature lie together, points in order, and the sort is stable.
__global__ void __launch_bounds__(kThreads)
    key_kernel(Levels levels, const float* points, int64_t n, Sort sort) {
  const int64_t k = thread_id();
  if (k >= n * levels.features()) return;
  const int feature = static_cast<int>(k / n);
  const int plane = feature / levels.count, level = feature % levels.count;
  const Place place = locate(points + 3 * (k % n), plane, levels.bound);
  uint32_t key = static_cast<uint32_t>(kPlanes * levels.plane_size());
  if (place.inside) {
    const Cell cell = find_cell(place, levels.scales[level], levels.resolutions[level]);
    key = static_cast<uint32_t>(levels.start(plane, level) + cell.index);
  }
  sort.keys[0][k] = key;
  sort.values[0][k] = static_cast<uint32_t>(k % n);
  count_key(sort, k, key);
}

// Where each cell's triples begin; entry `cells` is where the places outside begin.
__global__ void __launch_bounds__(kThreads)
    begin_kernel(const uint32_t* keys, int32_t count, int32_t cells, int32_t* begins) {
  const int64_t k = thread_id();
  if (k <= cells) begins[k] = lower_bound(keys, count, static_cast<uint32_t>(k));
}

// A warp an entry of the tables.
__global__ void __launch_bounds__(kThreads)
    tables_kernel(Levels levels, EncodeGrad g, const uint32_t* order, const int32_t* begins) {
  const int64_t entry = thread_id() / 32;
  const int lane = threadIdx.x % 32;
  if (entry >= static_cast<int64_t>(kPlanes) * levels.plane_size()) return;  // the whole warp
  const int plane = static_cast<int>(entry / levels.plane_size());
  const int32_t inside = static_cast<int32_t>(entry % levels.plane_size());
  int level = 0;
  while (level + 1 < levels.count && levels.offsets[level + 1] <= inside) ++level;
  const int32_t resolution = levels.resolutions[level], stride = resolution + 1;
  const int32_t local = inside - levels.offsets[level];
  const int32_t column = local % stride, row = local / stride;  // row > resolution: padding
  const float scale = levels.scales[level];
  float sum = 0.0f;
  for (int corner = 0; corner < 4; ++corner) {  // this entry is that corner of a cell
    const int dx = corner % 2, dy = corner / 2;
    const int32_t c = column - dx, r = row - dy;
    if (local < 0 || c < 0 || r < 0 || c >= resolution || r >= resolution) continue;
    const int32_t cell = levels.start(plane, level) + c + r * stride;
    for (int32_t k = begins[cell] + lane; k < begins[cell + 1]; k += 32) {
      const int64_t i = order[k];
      const Cell found =
          find_cell(locate(g.points + 3 * i, plane, levels.bound), scale, resolution);
      const float weight = g.v[i * levels.features() + plane * levels.count + level];
      const float lower = weight * found.below, upper = weight - lower;
      sum += (dy ? lower : upper) * (dx ? found.right : 1.0f - found.right);
    }
  }
  sum = warp_sum(sum);
  if (lane == 0) g.v_tables[entry] = sum;
}

}  // namespace

cudaError_t encode(cudaStream_t stream, const Levels& levels, const float* tables,
                   const float* points, int64_t n, float* features) {
  if (n == 0) return cudaSuccess;
  FG_LAUNCH(encode_kernel, blocks_for(n * levels.features(), kThreads), kThreads, stream, levels,
            tables, points, n, features);
  return cudaGetLastError();
}

cudaError_t encode_vjp(cudaStream_t stream, const Levels& levels, const EncodeGrad& g, int64_t n) {
  const int64_t triples = n * levels.features();
  const int32_t cells = kPlanes * levels.plane_size();
  const EncodeGradLayout at(n, levels.features(), cells);
  Sort sort = {};
  for (int k = 0; k < 2; ++k) {
    sort.keys[k] = area<uint32_t>(g.work, at.keys[k]);
    sort.values[k] = area<uint32_t>(g.work, at.points[k]);
  }
  sort.counts = area<uint32_t>(g.work, at.counts);
  sort.totals = area<uint32_t>(g.work, at.totals);
  sort.n = triples;
  sort.bits = bits_for(static_cast<uint32_t>(cells));
  int32_t* begins = area<int32_t>(g.work, at.begins);
  if (n > 0) {
    const cudaError_t error = cudaMemsetAsync(sort.counts, 0, sort.count_bytes(), stream);
    if (error != cudaSuccess) return error;
    FG_LAUNCH(coords_kernel, blocks_for(n, kThreads), kThreads, stream, levels, g, n);
    FG_LAUNCH(key_kernel, blocks_for(triples, kThreads), kThreads, stream, levels, g.points, n,
              sort);
    sort_pairs(stream, sort, JustSort{});
  }
  const int sorted = sort.passes() % 2;
  FG_LAUNCH(begin_kernel, blocks_for(int64_t{cells} + 1, kThreads), kThreads, stream,
            sort.keys[sorted], static_cast<int32_t>(triples), cells, begins);
  FG_LAUNCH(tables_kernel, blocks_for(int64_t{32} * cells, kThreads), kThreads, stream, levels, g,
            sort.values[sorted], begins);
  return cudaGetLastError();
}

}  // namespace fg
