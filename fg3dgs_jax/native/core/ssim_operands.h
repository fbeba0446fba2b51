// The door of SSIM that both platforms share: what it takes and gives, and the checks of it.
#pragma once

#include "core/operands.h"

namespace fg {

// A platform appends its own results and its context.
inline auto ssim_call() {
  return ffi::Ffi::Bind()
      .Arg<F32>()   // x [..., H, W, C]
      .Arg<F32>()   // y
      .Ret<F32>()   // mean of 1 - SSIM [...]
      .Ret<F32>();  // its gradient by x
}

struct SsimSize {
  int64_t pictures, height, width, channels;
};

inline ffi::Error check_ssim(const F32& x, const F32& y, const F32& distance, const F32& v_x,
                             SsimSize* out) {
  const auto shape = x.dimensions();
  if (shape.size() < 3) return ffi::Error::InvalidArgument("ssim: x must be [..., H, W, C]");
  const size_t last = shape.size() - 3;
  *out = {1, shape[last], shape[last + 1], shape[last + 2]};
  for (size_t i = 0; i < last; ++i) out->pictures *= shape[i];
  if (out->height < 1 || out->width < 1 || out->channels < 1)
    return ffi::Error::InvalidArgument("ssim: pictures are empty");
  if (y.element_count() != x.element_count() || v_x.element_count() != x.element_count() ||
      static_cast<int64_t>(distance.element_count()) != out->pictures) {
    return ffi::Error::InvalidArgument("ssim: x, y, distance and gradient do not fit together");
  }
  return ffi::Error::Success();
}

}  // namespace fg
