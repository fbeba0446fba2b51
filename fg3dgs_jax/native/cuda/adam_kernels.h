// What the optimizer's CUDA handler calls.
#pragma once

#include <cuda_runtime_api.h>
#include <stdint.h>

namespace fg {

// One parameter array and its moments, which are updated where they lie.
struct AdamLeaf {
  const float *values, *gradient, *mean, *square;  // [count]
  float *new_values, *new_mean, *new_square;       // [count], may be the same memory
  int32_t count;
  int32_t first_block;  // of the launch, that works on this leaf
  int32_t row, first;   // the `first` numbers of each `row` have a rate of their own
};

// A row of the table of numbers that change from step to step or from leaf to leaf.
struct AdamNumbers {
  float first_rate, rate;              // of the first numbers of a row, of all others
  float mean_decay, square_decay;      // b1, b2
  float mean_share, square_share;      // 1 - b1, 1 - b2
  float mean_missing, square_missing;  // 1 - b1^t, 1 - b2^t
};

// What a launch gets by value: CUDA takes 4 KB of arguments.
constexpr int kAdamLeaves = 48;
struct AdamLeaves {
  AdamLeaf leaves[kAdamLeaves];
  int32_t count;
};

// One step of Adam for all leaves; `numbers` [leaves] lie on the device.
cudaError_t adam(cudaStream_t, const AdamLeaf* leaves, int count, const AdamNumbers* numbers,
                 float eps);

}  // namespace fg
