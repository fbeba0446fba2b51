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
using U8 = ffi::Buffer<ffi::U8>;
using F32Out = ffi::Result<F32>;
using S32Out = ffi::Result<S32>;
using U8Out = ffi::Result<U8>;

#define FG_TRY(call) \
  if (auto error = (call); error.failure()) return error

inline ffi::Error refuse(const std::string& what) {
  return ffi::Error::InvalidArgument("fg3dgs: " + what);
}

struct Batch {
  const int64_t* dims;
  int rank;
  int64_t count;
};

// The leading dims of `buffer`, whose last `core` dims belong to one image. `expected` names the
// buffer and its dims, for the message.
template <typename Buffer>
ffi::Error batch_of(const char* expected, const Buffer& buffer, int core, Batch* out) {
  const auto dims = buffer.dimensions();
  *out = {dims.begin(), static_cast<int>(dims.size()) - core, 1};
  if (out->rank < 0) return refuse(std::string("expected ") + expected);
  for (int d = 0; d < out->rank; ++d) out->count *= out->dims[d];
  return ffi::Error::Success();
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
  if (!ok) return refuse(std::string("operand ") + name + " has an unexpected shape");
  out->data = operand.typed_data();
  return ffi::Error::Success();
}

}  // namespace fg
