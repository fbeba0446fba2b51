// The checks at the encoding's doors, on either platform.
#pragma once

#include "core/encode_math.h"
#include "xla/ffi/api/ffi.h"

namespace fg {

namespace ffi = xla::ffi;

inline ffi::Error check_encoding(ffi::Span<const int32_t> resolutions,
                                 ffi::Span<const float> scales, ffi::Span<const int32_t> offsets,
                                 float bound, const ffi::Buffer<ffi::F32>& tables,
                                 const ffi::Buffer<ffi::F32>& coords, Levels* out) {
  const size_t count = resolutions.size();
  if (count < 1 || count > kMaxLevels)
    return ffi::Error::InvalidArgument("hash encoding: 1 to 32 levels");
  if (scales.size() != count || offsets.size() != count + 1) {
    return ffi::Error::InvalidArgument(
        "hash encoding: resolutions, scales and offsets do not fit together");
  }
  out->count = static_cast<int32_t>(count), out->bound = bound;
  out->offsets[0] = offsets[0];
  for (size_t i = 0; i < count; ++i) {
    const int64_t side = static_cast<int64_t>(resolutions[i]) + 1;
    if (side < 2 || offsets[i] < 0 || int64_t{offsets[i + 1]} - offsets[i] < side * side)
      return ffi::Error::InvalidArgument("hash encoding: a level does not fit between its offsets");
    out->resolutions[i] = resolutions[i], out->scales[i] = scales[i];
    out->offsets[i + 1] = offsets[i + 1];
  }
  if (static_cast<int64_t>(tables.element_count()) != int64_t{kPlanes} * out->plane_size())
    return ffi::Error::InvalidArgument("hash encoding: tables must have 3 * offsets[-1] entries");
  if (coords.dimensions().size() != 2 || coords.dimensions()[1] != 3)
    return ffi::Error::InvalidArgument("hash encoding: coords must be [N, 3]");
  return ffi::Error::Success();
}

}  // namespace fg
