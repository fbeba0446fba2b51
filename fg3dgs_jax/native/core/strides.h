// Leading (batch) dimensions of operands that may each be 1 where the result has B: stride 0, no
// copies.
#pragma once

#include <stdint.h>

#include "core/gaussian_math.h"

namespace fg {

constexpr int kMaxLeading = 8;

struct Leading {
  int rank = 0;
  int64_t full[kMaxLeading];    // the result's leading dims
  int64_t stride[kMaxLeading];  // this operand's, in items; 0 where it has 1
};

// Index of the operand's item for flat batch index b of the result.
FG_HD int64_t item_of(const Leading& s, int64_t b) {
  int64_t offset = 0;
  for (int d = s.rank - 1; d >= 0; --d) {
    offset += (b % s.full[d]) * s.stride[d];
    b /= s.full[d];
  }
  return offset;
}

// False where `dims` (the operand's leading dims) do not broadcast to `full`.
FG_HD bool make_leading(const int64_t* full, const int64_t* dims, int rank, Leading* out) {
  if (rank > kMaxLeading) return false;
  out->rank = rank;
  int64_t step = 1;
  for (int d = rank - 1; d >= 0; --d) {
    if (dims[d] != 1 && dims[d] != full[d]) return false;
    out->full[d] = full[d];
    out->stride[d] = dims[d] == 1 ? 0 : step;
    step *= dims[d];
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
