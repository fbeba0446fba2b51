// The library's sort and scan, which are CUB's, in plain C++. Like CUB's radix sort, the result may
// land in either half of the buffers: here in the second if the passes of 8 bits are odd in number.
#include <algorithm>
#include <numeric>
#include <vector>

#include "cuda/kernels.h"

namespace fg {

cudaError_t sort_pairs(cudaStream_t, void*, size_t, uint32_t* const keys[2],
                       uint32_t* const values[2], int64_t n, int bits, int* sorted) {
  *sorted = (bits + 7) / 8 % 2;
  const uint32_t mask = bits == 32 ? ~0u : (1u << bits) - 1;
  std::vector<uint32_t> order(n), k(keys[0], keys[0] + n), v(values[0], values[0] + n);
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return (k[a] & mask) < (k[b] & mask); });
  for (int half = 0; half < 2; ++half) {  // the other half is left with rubbish
    for (int64_t i = 0; i < n; ++i) {
      keys[half][i] = half == *sorted ? k[order[i]] : 0xDEADBEEFu;
      values[half][i] = half == *sorted ? v[order[i]] : 0xDEADBEEFu;
    }
  }
  return cudaSuccess;
}

cudaError_t scan_counts(cudaStream_t, void*, size_t, const TileRect* rects, const uint32_t* order,
                        uint32_t* offsets, int64_t n) {
  uint32_t sum = 0;
  for (int64_t p = 0; p < n; ++p) {
    offsets[p] = sum;
    sum = saturating_add(sum, static_cast<uint32_t>(rects[order[p]].count()));
  }
  return cudaSuccess;
}

}  // namespace fg
