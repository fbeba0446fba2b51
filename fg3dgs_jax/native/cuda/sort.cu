// The sort and the scan, CUB's: both only launch kernels and set memory on the stream.
#include <thrust/iterator/transform_iterator.h>

#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>

#include "cuda/kernels.h"

namespace fg {
namespace {

struct TilesOf {
  const TileRect* rects;
  __host__ __device__ uint32_t operator()(uint32_t item) const {
    return static_cast<uint32_t>(rects[item].count());
  }
};

struct SaturatingAdd {
  __host__ __device__ uint32_t operator()(uint32_t a, uint32_t b) const {
    return saturating_add(a, b);
  }
};

}  // namespace

cudaError_t sort_pairs(cudaStream_t stream, void* temp, size_t temp_bytes, uint32_t* const keys[2],
                       uint32_t* const values[2], int64_t n, int bits, int* sorted) {
  *sorted = 0;
  if (n == 0) return cudaSuccess;
  cub::DoubleBuffer<uint32_t> k(keys[0], keys[1]), v(values[0], values[1]);
  const int count = static_cast<int>(n);
  size_t wanted = 0;
  cudaError_t error =
      cub::DeviceRadixSort::SortPairs(nullptr, wanted, k, v, count, 0, bits, stream);
  if (error != cudaSuccess) return error;
  if (wanted > temp_bytes) return cudaErrorMemoryAllocation;  // sort_temp_bytes is too small
  error = cub::DeviceRadixSort::SortPairs(temp, temp_bytes, k, v, count, 0, bits, stream);
  *sorted = k.selector;
  return error;
}

cudaError_t scan_counts(cudaStream_t stream, void* temp, size_t temp_bytes, const TileRect* rects,
                        const uint32_t* order, uint32_t* offsets, int64_t n) {
  if (n == 0) return cudaSuccess;
  const auto counts = thrust::make_transform_iterator(order, TilesOf{rects});
  const int items = static_cast<int>(n);
  size_t wanted = 0;
  cudaError_t error = cub::DeviceScan::ExclusiveScan(nullptr, wanted, counts, offsets,
                                                     SaturatingAdd{}, uint32_t{0}, items, stream);
  if (error != cudaSuccess) return error;
  if (wanted > temp_bytes) return cudaErrorMemoryAllocation;
  return cub::DeviceScan::ExclusiveScan(temp, temp_bytes, counts, offsets, SaturatingAdd{},
                                        uint32_t{0}, items, stream);
}

}  // namespace fg
