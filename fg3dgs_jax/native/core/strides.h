// Leading (batch) dimensions of operands that may each be 1 where the result has B: stride 0, no
// copies.
#pragma once

#include <stdint.h>

#include "core/gaussian_math.h"

namespace fg {

constexpr int kMaxLeading = 8;

// Dims that lie behind each other in both are one, so that most operands have one or none.
struct Leading {
  int rank = 0;
  int32_t full[kMaxLeading];    // the result's leading dims, the last first
  int32_t stride[kMaxLeading];  // this operand's, in items; 0 where it has 1
};

// Index of the operand's item for flat batch index b of the result.
FG_HD int64_t item_of(const Leading& s, int64_t b) {
  if (s.rank == 0) return 0;
  uint32_t rest = static_cast<uint32_t>(b);
  int64_t offset = 0;
#ifdef __CUDA_ARCH__
#pragma unroll 1
#endif
  for (int d = 0; d + 1 < s.rank; ++d) {
    offset += static_cast<int64_t>(rest % s.full[d]) * s.stride[d];
    rest /= s.full[d];
  }
  return offset + static_cast<int64_t>(rest) * s.stride[s.rank - 1];
}

// False where `dims` (the operand's leading dims) do not broadcast to `full`, or are too many.
FG_HD bool make_leading(const int64_t* full, const int64_t* dims, int rank, Leading* out) {
  if (rank > kMaxLeading) return false;
  out->rank = 0;
  int64_t step = 1, count = 1;
  for (int d = rank - 1; d >= 0; --d) {
    count *= full[d];
    if ((dims[d] != 1 && dims[d] != full[d]) || count > 0x7FFFFFFF) return false;
    const int64_t stride = dims[d] == 1 ? 0 : step;
    step *= dims[d];
    if (full[d] == 1) continue;
    const int last = out->rank - 1;
    if (last >= 0 && stride == int64_t{out->stride[last]} * out->full[last]) {
      out->full[last] *= static_cast<int32_t>(full[d]);
    } else {
      out->full[out->rank] = static_cast<int32_t>(full[d]);
      out->stride[out->rank++] = static_cast<int32_t>(stride);
    }
  }
  return true;
}

// An operand with leading dims that broadcast to the batch: at(b) is image b's array.
template <typename T>
struct Batched {
  const T* data;
  Leading leading;
  int64_t size;  // of one image's array
  FG_HD_MEMBER const T* at(int64_t b) const { return data + item_of(leading, b) * size; }
};

}  // namespace fg
