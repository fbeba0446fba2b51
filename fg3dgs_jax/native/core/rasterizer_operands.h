// The doors of the rasterizer's custom calls that both platforms share: what a call takes and
// gives, and the checks of its operands.
#pragma once

#include "core/operands.h"
#include "core/rasterizer_inputs.h"

namespace fg {

// The signatures. A platform appends its own results and its context.

inline auto project_fwd_call() {
  return ffi::Ffi::Bind()
      .Arg<F32>()  // means [..., N, 3]
      .Arg<F32>()  // quats [..., N, 4]
      .Arg<F32>()  // scales [..., N, 3]
      .Arg<F32>()  // opacities [..., N]
      .Arg<F32>()  // world_to_camera [..., 4, 4]
      .Arg<F32>()  // fx, fy, cx, cy [..., 4]
      .Ret<F32>()  // means2d [..., N, 2]
      .Ret<F32>()  // depths [..., N]
      .Ret<F32>()  // conics [..., N, 3]
      .Ret<S32>()  // radii [..., N, 2]
      .Ret<F32>()  // compensations [..., N]
      .Attr<int64_t>("width")
      .Attr<int64_t>("height")
      .Attr<float>("eps2d")
      .Attr<float>("near")
      .Attr<float>("far")
      .Attr<bool>("antialiased");
}

inline auto project_bwd_call() {
  return ffi::Ffi::Bind()
      .Arg<F32>()  // means [..., N, 3]
      .Arg<F32>()  // quats [..., N, 4]
      .Arg<F32>()  // scales [..., N, 3]
      .Arg<F32>()  // world_to_camera [..., 4, 4]
      .Arg<F32>()  // fx, fy, cx, cy [..., 4]
      .Arg<S32>()  // radii [..., N, 2]
      .Arg<F32>()  // cotangent of means2d
      .Arg<F32>()  // ... depths
      .Arg<F32>()  // ... conics
      .Arg<F32>()  // ... compensations
      .Ret<F32>()  // gradient of means [..., N, 3]
      .Ret<F32>()  // ... quats [..., N, 4]
      .Ret<F32>()  // ... scales [..., N, 3]
      .Ret<F32>()  // ... world_to_camera [..., 4, 4]
      .Attr<int64_t>("width")
      .Attr<int64_t>("height")
      .Attr<float>("eps2d")
      .Attr<float>("near")
      .Attr<float>("far")
      .Attr<bool>("antialiased");
}

inline auto rasterize_fwd_call() {
  return ffi::Ffi::Bind()
      .Arg<F32>()   // means2d [..., N, 2]
      .Arg<F32>()   // depths [..., N]
      .Arg<F32>()   // conics [..., N, 3]
      .Arg<S32>()   // radii [..., N, 2]
      .Arg<F32>()   // colors [..., N, D]
      .Arg<F32>()   // opacities [..., N]
      .Arg<F32>()   // background [..., D]
      .Ret<F32>()   // image [..., H, W, D]
      .Ret<F32>()   // alpha [..., H, W]
      .Ret<S32>();  // n_isects [...]
}

// The checks.

inline ffi::Error bind_gaussians(const Batch& batch, F32 means, F32 quats, F32 scales, F32 pose,
                                 F32 intrinsics, ProjectIn* out) {
  const int64_t n = out->n;
  FG_TRY(bind("means", means, batch, {n, 3}, &out->means));
  FG_TRY(bind("quats", quats, batch, {n, 4}, &out->quats));
  FG_TRY(bind("scales", scales, batch, {n, 3}, &out->scales));
  FG_TRY(bind("pose", pose, batch, {4, 4}, &out->pose));
  return bind("intrinsics", intrinsics, batch, {4}, &out->intrinsics);
}

inline ffi::Error bind_cotangents(const Batch& batch, int64_t n, S32 radii, F32 v_means2d,
                                  F32 v_depths, F32 v_conics, F32 v_compensations,
                                  ProjectCotangents* out) {
  FG_TRY(bind("radii", radii, batch, {n, 2}, &out->radii));
  FG_TRY(bind("v_means2d", v_means2d, batch, {n, 2}, &out->v_means2d));
  FG_TRY(bind("v_depths", v_depths, batch, {n}, &out->v_depths));
  FG_TRY(bind("v_conics", v_conics, batch, {n, 3}, &out->v_conics));
  return bind("v_compensations", v_compensations, batch, {n}, &out->v_compensations);
}

inline ffi::Error check_channels(int64_t channels) {
  if (channels < 1 || channels > kMaxChannels) return refuse("1 to 32 colour channels");
  return ffi::Error::Success();
}

inline ffi::Error bind_splats(const Batch& batch, F32 means2d, F32 depths, F32 conics, S32 radii,
                              F32 colors, F32 opacities, Splats* out) {
  if (depths.dimensions().size() == 0 || colors.dimensions().size() == 0)
    return refuse("expected depths [..., N], colors [..., N, D]");
  const int64_t n = depths.dimensions().back(), channels = colors.dimensions().back();
  out->n = n, out->channels = channels;
  FG_TRY(check_channels(channels));
  FG_TRY(bind("means2d", means2d, batch, {n, 2}, &out->means2d));
  FG_TRY(bind("depths", depths, batch, {n}, &out->depths));
  FG_TRY(bind("conics", conics, batch, {n, 3}, &out->conics));
  FG_TRY(bind("radii", radii, batch, {n, 2}, &out->radii));
  FG_TRY(bind("colors", colors, batch, {n, channels}, &out->colors));
  return bind("opacities", opacities, batch, {n}, &out->opacities);
}

inline ffi::Error bind_picture(const Batch& batch, int64_t channels, F32 image, F32 alpha,
                               F32 v_image, F32 v_alpha, PictureGrad* out) {
  const auto dims = alpha.dimensions();
  if (dims.size() < 2) return refuse("expected alpha [..., H, W]");
  const int64_t height = dims[dims.size() - 2], width = dims[dims.size() - 1];
  out->height = height, out->width = width;
  FG_TRY(bind("image", image, batch, {height, width, channels}, &out->image));
  FG_TRY(bind("alpha", alpha, batch, {height, width}, &out->alpha));
  FG_TRY(bind("v_image", v_image, batch, {height, width, channels}, &out->v_image));
  return bind("v_alpha", v_alpha, batch, {height, width}, &out->v_alpha);
}

}  // namespace fg
