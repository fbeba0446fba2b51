// What the encoding's CUDA handlers call.
#pragma once

#include <cuda_runtime_api.h>

#include "core/encode_math.h"
#include "cuda/layout.h"

namespace fg {

struct EncodeGrad {
  const float *tables, *points, *v;  // [entries], [N, 3], [N, features]
  float *v_tables, *v_points;
  void* work;  // EncodeGradLayout
};

cudaError_t encode(cudaStream_t, const Levels&, const float* tables, const float* points, int64_t n,
                   float* features);
cudaError_t encode_vjp(cudaStream_t, const Levels&, const EncodeGrad&, int64_t n);

}  // namespace fg
