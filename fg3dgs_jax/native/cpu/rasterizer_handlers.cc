// The XLA FFI doors: decode buffers, check shapes, loop over the images of the batch.
#include <cstring>

#include "core/operands.h"
#include "cpu/bin.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace fg {
namespace {

ffi::Error project_fwd(ffi::ThreadPool pool, F32 means_, F32 quats_, F32 scales_, F32 opacities_,
                       F32 pose_, F32 intrinsics_, F32Out means2d, F32Out depths, F32Out conics,
                       S32Out radii, F32Out comps, int64_t width, int64_t height, float eps2d,
                       float near, float far, bool antialiased) {
  const Batch batch = batch_of(*depths, 1);
  const int64_t n = depths->dimensions().back();
  FG_BIND(float, means, means_, {n, 3});
  FG_BIND(float, quats, quats_, {n, 4});
  FG_BIND(float, scales, scales_, {n, 3});
  FG_BIND(float, opacities, opacities_, {n});
  FG_BIND(float, pose, pose_, {4, 4});
  FG_BIND(float, intrinsics, intrinsics_, {4});
  const int64_t per_image = (n + kChunk - 1) / kChunk;
  parallel_for(pool, batch.count * per_image, [&](int64_t item) {
    const int64_t b = item / per_image, begin = item % per_image * kChunk;
    const ProjectArgs in = {
        means.at(b), quats.at(b), scales.at(b), opacities.at(b),
        view_of(pose.at(b), intrinsics.at(b), width, height, eps2d, near, far, antialiased)};
    const ProjectOut out = {means2d->typed_data() + b * n * 2, depths->typed_data() + b * n,
                            conics->typed_data() + b * n * 3, comps->typed_data() + b * n,
                            radii->typed_data() + b * n * 2};
    kernels().project(in, out, begin, std::min(n, begin + kChunk));
  });
  return ffi::Error::Success();
}

ffi::Error project_bwd(ffi::ThreadPool pool, F32 means_, F32 quats_, F32 scales_, F32 pose_,
                       F32 intrinsics_, S32 radii_, F32 v_means2d_, F32 v_depths_, F32 v_conics_,
                       F32 v_comps_, F32Out v_means, F32Out v_quats, F32Out v_scales, F32Out v_pose,
                       int64_t width, int64_t height, float eps2d, float near, float far,
                       bool antialiased) {
  const Batch batch = batch_of(*v_means, 2);
  const int64_t n = v_means->dimensions()[batch.rank];
  FG_BIND(float, means, means_, {n, 3});
  FG_BIND(float, quats, quats_, {n, 4});
  FG_BIND(float, scales, scales_, {n, 3});
  FG_BIND(float, pose, pose_, {4, 4});
  FG_BIND(float, intrinsics, intrinsics_, {4});
  FG_BIND(int32_t, radii, radii_, {n, 2});
  FG_BIND(float, v_means2d, v_means2d_, {n, 2});
  FG_BIND(float, v_depths, v_depths_, {n});
  FG_BIND(float, v_conics, v_conics_, {n, 3});
  FG_BIND(float, v_comps, v_comps_, {n});
  const int64_t per_image = (n + kChunk - 1) / kChunk;
  static thread_local Buffer<float> arena;
  float* shares = arena.reserve(batch.count * per_image * 12);
  parallel_for(pool, batch.count * per_image, [&](int64_t item) {
    const int64_t b = item / per_image, begin = item % per_image * kChunk;
    const ProjectArgs in = {
        means.at(b), quats.at(b), scales.at(b), nullptr,
        view_of(pose.at(b), intrinsics.at(b), width, height, eps2d, near, far, antialiased)};
    const ProjectGrad g = {radii.at(b),
                           v_means2d.at(b),
                           v_depths.at(b),
                           v_conics.at(b),
                           v_comps.at(b),
                           v_means->typed_data() + b * n * 3,
                           v_quats->typed_data() + b * n * 4,
                           v_scales->typed_data() + b * n * 3};
    kernels().project_vjp(in, g, begin, std::min(n, begin + kChunk), shares + item * 12);
  });
  for (int64_t b = 0; b < batch.count; ++b) {
    float* out = v_pose->typed_data() + b * 16;
    std::memset(out, 0, 16 * sizeof(float));
    for (int64_t c = 0; c < per_image; ++c) {
      const float* share = shares + (b * per_image + c) * 12;
      for (int r = 0; r < 3; ++r) {
        for (int k = 0; k < 3; ++k) out[4 * r + k] += share[3 * r + k];
        out[4 * r + 3] += share[9 + r];
      }
    }
  }
  return ffi::Error::Success();
}

thread_local Bins arena;

// The operands that the forward and the backward of blending share.
struct Scenes {
  Batched<float> means2d, depths, conics, colors, opacities;
  Batched<int32_t> radii;
  int64_t n, channels, width, height;

  Scene at(int64_t b) const {
    return {means2d.at(b),
            depths.at(b),
            conics.at(b),
            opacities.at(b),
            colors.at(b),
            radii.at(b),
            n,
            static_cast<int>(channels),
            static_cast<int>(width),
            static_cast<int>(height)};
  }
};

ffi::Error scenes_of(const Batch& batch, F32 means2d_, F32 depths_, F32 conics_, S32 radii_,
                     F32 colors_, F32 opacities_, int64_t width, int64_t height, Scenes* out) {
  const int64_t n = depths_.dimensions().back(), D = colors_.dimensions().back();
  if (D < 1 || D > kMaxChannels)
    return ffi::Error::InvalidArgument("fg3dgs: 1 to 32 colour channels");
  FG_BIND(float, means2d, means2d_, {n, 2});
  FG_BIND(float, depths, depths_, {n});
  FG_BIND(float, conics, conics_, {n, 3});
  FG_BIND(int32_t, radii, radii_, {n, 2});
  FG_BIND(float, colors, colors_, {n, D});
  FG_BIND(float, opacities, opacities_, {n});
  *out = {means2d, depths, conics, colors, opacities, radii, n, D, width, height};
  return ffi::Error::Success();
}

ffi::Error bin_scene(ffi::ThreadPool& pool, const Scene& scene, Bins* bins) {
  if (bin(pool, scene, bins)) return ffi::Error::Success();
  return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                    "fg3dgs: more than 2^31 tile entries in one image");
}

#define FG_TRY(call) \
  if (auto error = (call); error.failure()) return error

ffi::Error rasterize_fwd(ffi::ThreadPool pool, F32 means2d_, F32 depths_, F32 conics_, S32 radii_,
                         F32 colors_, F32 opacities_, F32 background_, F32Out image, F32Out alpha,
                         S32Out n_isects) {
  const Batch batch = batch_of(*alpha, 2);
  const int64_t height = alpha->dimensions()[batch.rank],
                width = alpha->dimensions()[batch.rank + 1];
  Scenes scenes;
  FG_TRY(scenes_of(batch, means2d_, depths_, conics_, radii_, colors_, opacities_, width, height,
                   &scenes));
  const int64_t D = scenes.channels;
  FG_BIND(float, background, background_, {D});
  Bins& bins = arena;
  for (int64_t b = 0; b < batch.count; ++b) {
    const Scene scene = scenes.at(b);
    FG_TRY(bin_scene(pool, scene, &bins));
    n_isects->typed_data()[b] = static_cast<int32_t>(bins.entries);
    const TileForward io = {background.at(b), image->typed_data() + b * height * width * D,
                            alpha->typed_data() + b * height * width};
    parallel_for(pool, static_cast<int64_t>(bins.tiles_x) * bins.tiles_y,
                 [&](int64_t k) { kernels().blend(tile_at(scene, bins, bins.schedule[k]), io); });
  }
  return ffi::Error::Success();
}

ffi::Error rasterize_bwd(ffi::ThreadPool pool, F32 means2d_, F32 depths_, F32 conics_, S32 radii_,
                         F32 colors_, F32 opacities_, F32 image_, F32 alpha_, F32 v_image_,
                         F32 v_alpha_, F32Out v_means2d, F32Out v_conics, F32Out v_colors,
                         F32Out v_opacities, F32Out v_background) {
  const Batch batch = batch_of(*v_opacities, 1);
  const auto alpha_dims = alpha_.dimensions();
  const int64_t height = alpha_dims[alpha_dims.size() - 2],
                width = alpha_dims[alpha_dims.size() - 1];
  Scenes scenes;
  FG_TRY(scenes_of(batch, means2d_, depths_, conics_, radii_, colors_, opacities_, width, height,
                   &scenes));
  const int64_t n = scenes.n, D = scenes.channels;
  FG_BIND(float, image, image_, {height, width, D});
  FG_BIND(float, alpha, alpha_, {height, width});
  FG_BIND(float, v_image, v_image_, {height, width, D});
  FG_BIND(float, v_alpha, v_alpha_, {height, width});
  Bins& bins = arena;
  for (int64_t b = 0; b < batch.count; ++b) {
    const Scene scene = scenes.at(b);
    FG_TRY(bin_scene(pool, scene, &bins));
    const int64_t tiles = static_cast<int64_t>(bins.tiles_x) * bins.tiles_y;
    float* sums = bins.sums.reserve(bins.entries * slot_stride(D));
    float* tile_sums = bins.tile_sums.reserve(tiles * D);
    parallel_for(pool, tiles, [&](int64_t k) {
      const int32_t t = bins.schedule[k];
      const TileBackward io = {
          image.at(b), alpha.at(b),      v_image.at(b), v_alpha.at(b), bins.first_slots.data(),
          sums,        tile_sums + t * D};
      kernels().blend_vjp(tile_at(scene, bins, t), io);
    });
    const SceneGrad out = {v_means2d->typed_data() + b * n * 2, v_conics->typed_data() + b * n * 3,
                           v_colors->typed_data() + b * n * D, v_opacities->typed_data() + b * n};
    parallel_for(pool, (n + kChunk - 1) / kChunk, [&](int64_t c) {
      kernels().collect(scene, bins.rects.data(), sums + bins.first_slots[c] * slot_stride(D), out,
                        c * kChunk, std::min(n, (c + 1) * kChunk));
    });
    float* out_background = v_background->typed_data() + b * D;
    std::memset(out_background, 0, D * sizeof(float));
    for (int64_t t = 0; t < tiles; ++t) {
      for (int64_t d = 0; d < D; ++d) out_background[d] += tile_sums[t * D + d];
    }
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace fg

namespace ffi = xla::ffi;

XLA_FFI_DEFINE_HANDLER_SYMBOL(fg3dgs_project_fwd, fg::project_fwd,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<fg::F32>()  // means [..., N, 3]
                                  .Arg<fg::F32>()  // quats [..., N, 4]
                                  .Arg<fg::F32>()  // scales [..., N, 3]
                                  .Arg<fg::F32>()  // opacities [..., N]
                                  .Arg<fg::F32>()  // world_to_camera [..., 4, 4]
                                  .Arg<fg::F32>()  // fx, fy, cx, cy [..., 4]
                                  .Ret<fg::F32>()  // means2d [..., N, 2]
                                  .Ret<fg::F32>()  // depths [..., N]
                                  .Ret<fg::F32>()  // conics [..., N, 3]
                                  .Ret<fg::S32>()  // radii [..., N, 2]
                                  .Ret<fg::F32>()  // compensations [..., N]
                                  .Attr<int64_t>("width")
                                  .Attr<int64_t>("height")
                                  .Attr<float>("eps2d")
                                  .Attr<float>("near")
                                  .Attr<float>("far")
                                  .Attr<bool>("antialiased"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(fg3dgs_project_bwd, fg::project_bwd,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<fg::F32>()  // means [..., N, 3]
                                  .Arg<fg::F32>()  // quats [..., N, 4]
                                  .Arg<fg::F32>()  // scales [..., N, 3]
                                  .Arg<fg::F32>()  // world_to_camera [..., 4, 4]
                                  .Arg<fg::F32>()  // fx, fy, cx, cy [..., 4]
                                  .Arg<fg::S32>()  // radii [..., N, 2]
                                  .Arg<fg::F32>()  // cotangent of means2d
                                  .Arg<fg::F32>()  // ... depths
                                  .Arg<fg::F32>()  // ... conics
                                  .Arg<fg::F32>()  // ... compensations
                                  .Ret<fg::F32>()  // gradient of means [..., N, 3]
                                  .Ret<fg::F32>()  // ... quats [..., N, 4]
                                  .Ret<fg::F32>()  // ... scales [..., N, 3]
                                  .Ret<fg::F32>()  // ... world_to_camera [..., 4, 4]
                                  .Attr<int64_t>("width")
                                  .Attr<int64_t>("height")
                                  .Attr<float>("eps2d")
                                  .Attr<float>("near")
                                  .Attr<float>("far")
                                  .Attr<bool>("antialiased"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(fg3dgs_rasterize_fwd, fg::rasterize_fwd,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<fg::F32>()    // means2d [..., N, 2]
                                  .Arg<fg::F32>()    // depths [..., N]
                                  .Arg<fg::F32>()    // conics [..., N, 3]
                                  .Arg<fg::S32>()    // radii [..., N, 2]
                                  .Arg<fg::F32>()    // colors [..., N, D]
                                  .Arg<fg::F32>()    // opacities [..., N]
                                  .Arg<fg::F32>()    // background [..., D]
                                  .Ret<fg::F32>()    // image [..., H, W, D]
                                  .Ret<fg::F32>()    // alpha [..., H, W]
                                  .Ret<fg::S32>());  // n_isects [...]

XLA_FFI_DEFINE_HANDLER_SYMBOL(fg3dgs_rasterize_bwd, fg::rasterize_bwd,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<fg::F32>()    // means2d [..., N, 2]
                                  .Arg<fg::F32>()    // depths [..., N]
                                  .Arg<fg::F32>()    // conics [..., N, 3]
                                  .Arg<fg::S32>()    // radii [..., N, 2]
                                  .Arg<fg::F32>()    // colors [..., N, D]
                                  .Arg<fg::F32>()    // opacities [..., N]
                                  .Arg<fg::F32>()    // image [..., H, W, D]
                                  .Arg<fg::F32>()    // alpha [..., H, W]
                                  .Arg<fg::F32>()    // cotangent of image
                                  .Arg<fg::F32>()    // ... alpha
                                  .Ret<fg::F32>()    // gradient of means2d [..., N, 2]
                                  .Ret<fg::F32>()    // ... conics [..., N, 3]
                                  .Ret<fg::F32>()    // ... colors [..., N, D]
                                  .Ret<fg::F32>()    // ... opacities [..., N]
                                  .Ret<fg::F32>());  // ... background [..., D]
