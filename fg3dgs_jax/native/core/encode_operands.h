// The doors of the encoding's custom calls that both platforms share: what a call takes and gives,
// and the checks of its operands.
#pragma once

#include "core/encode_math.h"
#include "core/operands.h"

namespace fg {

using Ints = ffi::Span<const int32_t>;
using Floats = ffi::Span<const float>;

// The signatures. A platform appends its own results and its context.

inline auto encode_fwd_call() {
  return ffi::Ffi::Bind()
      .Arg<F32>()  // tables [entries]
      .Arg<F32>()  // coords [N, 3]
      .Ret<F32>()  // features [N, 3 * levels]
      .Attr<Ints>("resolutions")
      .Attr<Floats>("scales")
      .Attr<Ints>("offsets")
      .Attr<float>("bound");
}

inline auto encode_bwd_call() {
  return ffi::Ffi::Bind()
      .Arg<F32>()  // tables [entries]
      .Arg<F32>()  // coords [N, 3]
      .Arg<F32>()  // cotangent of features [N, 3 * levels]
      .Ret<F32>()  // gradient of tables [entries]
      .Ret<F32>()  // ... coords [N, 3]
      .Attr<Ints>("resolutions")
      .Attr<Floats>("scales")
      .Attr<Ints>("offsets")
      .Attr<float>("bound");
}

// The checks.

inline ffi::Error check_encoding(Ints resolutions, Floats scales, Ints offsets, float bound,
                                 const F32& tables, const F32& coords, Levels* out) {
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

inline ffi::Error check_features(const Levels& levels, const F32& coords, const F32& features) {
  if (static_cast<int64_t>(features.element_count()) != coords.dimensions()[0] * levels.features())
    return ffi::Error::InvalidArgument("hash encoding: features must be [N, 3 * levels]");
  return ffi::Error::Success();
}

inline ffi::Error check_cotangents(const Levels& levels, const F32& tables, const F32& coords,
                                   const F32& v_features, const F32& v_tables,
                                   const F32& v_coords) {
  const int64_t count = coords.dimensions()[0] * levels.features();
  if (static_cast<int64_t>(v_features.element_count()) != count ||
      v_tables.element_count() != tables.element_count() ||
      v_coords.element_count() != coords.element_count()) {
    return ffi::Error::InvalidArgument(
        "hash encoding: cotangents do not have the shapes of their arguments");
  }
  return ffi::Error::Success();
}

}  // namespace fg
