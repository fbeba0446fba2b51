// The doors of the custom calls: buffers with leading (batch) dims, checked and bound.
#pragma once

#include <initializer_list>
#include <string>

#include "core/strides.h"
#include "xla/ffi/api/ffi.h"

namespace fg {

namespace ffi = xla::ffi;
using F32 = ffi::Buffer<ffi::F32>;
using S32 = ffi::Buffer<ffi::S32>;
using F32Out = ffi::Result<F32>;
using S32Out = ffi::Result<S32>;

struct Batch {
  const int64_t* dims;
  int rank;
  int64_t count;
};

template <typename Buffer>
Batch batch_of(const Buffer& result, int core) {
  const auto dims = result.dimensions();
  Batch batch = {dims.begin(), static_cast<int>(dims.size()) - core, 1};
  for (int d = 0; d < batch.rank; ++d) batch.count *= batch.dims[d];
  return batch;
}

// Checks that `operand` is [leading..., core...] for this batch.
template <typename T, typename Buffer>
ffi::Error bind(const char* name, const Buffer& operand, const Batch& batch,
                std::initializer_list<int64_t> core, Batched<T>* out) {
  const auto dims = operand.dimensions();
  bool ok = static_cast<int>(dims.size()) == batch.rank + static_cast<int>(core.size());
  out->size = 1;
  int at = batch.rank;
  for (int64_t c : core) {
    ok = ok && dims[at++] == c;
    out->size *= c;
  }
  ok = ok && make_leading(batch.dims, dims.begin(), batch.rank, &out->leading);
  if (!ok)
    return ffi::Error::InvalidArgument(std::string("fg3dgs: operand ") + name +
                                       " has an unexpected shape");
  out->data = operand.typed_data();
  return ffi::Error::Success();
}

#define FG_BIND(T, var, buffer, ...) \
  Batched<T> var;                    \
  if (auto error = bind<T>(#var, buffer, batch, __VA_ARGS__, &var); error.failure()) return error

}  // namespace fg
