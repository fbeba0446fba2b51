// Adam for many small arrays at once. XLA launches a kernel for each of them, and most take less
// time than their launch. Here a block works on a piece of one array, and blocks of all arrays
// stand in one launch.
#include "cuda/adam_kernels.h"
#include "cuda/warp.cuh"

namespace fg {
namespace {

constexpr int kThreads = 256, kPiece = 4 * kThreads;

// Equations of Kingma and Ba, algorithm 1, in the order in which optax computes them.
__global__ void __launch_bounds__(kThreads)
    adam_kernel(AdamLeaves all, const AdamNumbers* numbers, float eps) {
  const int block = static_cast<int>(blockIdx.x);
  int low = 0, high = all.count - 1;  // the last leaf that begins at or before this block
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (all.leaves[middle].first_block <= block) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  const AdamLeaf& leaf = all.leaves[low];
  const AdamNumbers n = numbers[low];
  const int begin = (block - leaf.first_block) * kPiece;
  for (int k = begin + static_cast<int>(threadIdx.x); k < begin + kPiece && k < leaf.count;
       k += kThreads) {
    const float g = leaf.gradient[k];
    const float mean = n.mean_share * g + n.mean_decay * leaf.mean[k];
    const float square = n.square_share * (g * g) + n.square_decay * leaf.square[k];
    const float step = (mean / n.mean_missing) / (sqrtf(square / n.square_missing) + eps);
    leaf.new_values[k] =
        leaf.values[k] - (k % leaf.row < leaf.first ? n.first_rate : n.rate) * step;
    leaf.new_mean[k] = mean;
    leaf.new_square[k] = square;
  }
}

}  // namespace

cudaError_t adam(cudaStream_t stream, const AdamLeaf* leaves, int count, const AdamNumbers* numbers,
                 float eps) {
  for (int begin = 0; begin < count; begin += kAdamLeaves) {
    AdamLeaves all;
    int blocks = 0;
    all.count = count - begin < kAdamLeaves ? count - begin : kAdamLeaves;
    for (int i = 0; i < all.count; ++i) {
      all.leaves[i] = leaves[begin + i];
      all.leaves[i].first_block = blocks;
      blocks += (all.leaves[i].count + kPiece - 1) / kPiece;
    }
    if (blocks == 0) continue;
    FG_LAUNCH(adam_kernel, static_cast<unsigned>(blocks), kThreads, stream, all, numbers + begin,
              eps);
  }
  return cudaGetLastError();
}

}  // namespace fg
