// The XLA FFI doors: check and bind buffers, loop over the images of the batch.
#include <cstring>

#include "core/rasterizer_operands.h"
#include "cpu/bin.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace fg {
namespace {

ffi::Error project_fwd(F32 means, F32 quats, F32 scales, F32 opacities, F32 pose, F32 intrinsics,
                       F32Out means2d, F32Out depths, F32Out conics, S32Out radii, F32Out comps,
                       int64_t width, int64_t height, float eps2d, float near, float far,
                       bool antialiased, ffi::ThreadPool pool) {
  Batch batch;
  FG_TRY(batch_of("depths [..., N]", *depths, 1, &batch));
  ProjectIn in;
  const int64_t n = in.n = depths->dimensions().back();
  in.options = {width, height, eps2d, near, far, antialiased};
  FG_TRY(bind_gaussians(batch, means, quats, scales, pose, intrinsics, &in));
  FG_TRY(bind("opacities", opacities, batch, {n}, &in.opacities));
  const int64_t per_image = (n + kChunk - 1) / kChunk;
  parallel_for(pool, batch.count * per_image, [&](int64_t item) {
    const int64_t b = item / per_image, begin = item % per_image * kChunk;
    const ProjectArgs args = {in.means.at(b), in.quats.at(b), in.scales.at(b), in.opacities.at(b),
                              in.view(b)};
    const ProjectOut out = {means2d->typed_data() + b * n * 2, depths->typed_data() + b * n,
                            conics->typed_data() + b * n * 3, comps->typed_data() + b * n,
                            radii->typed_data() + b * n * 2};
    kernels().project(args, out, begin, std::min(n, begin + kChunk));
  });
  return ffi::Error::Success();
}

ffi::Error project_bwd(F32 means, F32 quats, F32 scales, F32 pose, F32 intrinsics, S32 radii,
                       F32 v_means2d, F32 v_depths, F32 v_conics, F32 v_comps, F32Out v_means,
                       F32Out v_quats, F32Out v_scales, F32Out v_pose, int64_t width,
                       int64_t height, float eps2d, float near, float far, bool antialiased,
                       ffi::ThreadPool pool) {
  Batch batch;
  FG_TRY(batch_of("the gradient of means [..., N, 3]", *v_means, 2, &batch));
  ProjectIn in;
  ProjectCotangents v;
  const int64_t n = in.n = v_means->dimensions()[batch.rank];
  in.options = {width, height, eps2d, near, far, antialiased};
  FG_TRY(bind_gaussians(batch, means, quats, scales, pose, intrinsics, &in));
  FG_TRY(bind_cotangents(batch, n, radii, v_means2d, v_depths, v_conics, v_comps, &v));
  const int64_t per_image = (n + kChunk - 1) / kChunk;
  static thread_local Buffer<float> arena;
  float* shares = arena.reserve(batch.count * per_image * 12);
  parallel_for(pool, batch.count * per_image, [&](int64_t item) {
    const int64_t b = item / per_image, begin = item % per_image * kChunk;
    const ProjectArgs args = {in.means.at(b), in.quats.at(b), in.scales.at(b), nullptr, in.view(b)};
    const ProjectGrad g = {v.radii.at(b),
                           v.v_means2d.at(b),
                           v.v_depths.at(b),
                           v.v_conics.at(b),
                           v.v_compensations.at(b),
                           v_means->typed_data() + b * n * 3,
                           v_quats->typed_data() + b * n * 4,
                           v_scales->typed_data() + b * n * 3};
    kernels().project_vjp(args, g, begin, std::min(n, begin + kChunk), shares + item * 12);
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

Scene scene_at(const Splats& splats, int64_t b, int64_t width, int64_t height) {
  return {splats.means2d.at(b),
          splats.depths.at(b),
          splats.conics.at(b),
          splats.opacities.at(b),
          splats.colors.at(b),
          splats.radii.at(b),
          splats.n,
          static_cast<int>(splats.channels),
          static_cast<int>(width),
          static_cast<int>(height)};
}

ffi::Error bin_scene(ffi::ThreadPool& pool, const Scene& scene, Bins* bins) {
  if (bin(pool, scene, bins)) return ffi::Error::Success();
  return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                    "fg3dgs: more than 2^31 tile entries in one image");
}

ffi::Error rasterize_fwd(F32 means2d, F32 depths, F32 conics, S32 radii, F32 colors, F32 opacities,
                         F32 background, F32Out image, F32Out alpha, S32Out n_isects,
                         ffi::ThreadPool pool) {
  Batch batch;
  FG_TRY(batch_of("alpha [..., H, W]", *alpha, 2, &batch));
  const int64_t height = alpha->dimensions()[batch.rank];
  const int64_t width = alpha->dimensions()[batch.rank + 1];
  Splats splats;
  Batched<float> backgrounds;
  FG_TRY(bind_splats(batch, means2d, depths, conics, radii, colors, opacities, &splats));
  FG_TRY(bind("background", background, batch, {splats.channels}, &backgrounds));
  Bins& bins = arena;
  for (int64_t b = 0; b < batch.count; ++b) {
    const Scene scene = scene_at(splats, b, width, height);
    FG_TRY(bin_scene(pool, scene, &bins));
    n_isects->typed_data()[b] = static_cast<int32_t>(bins.entries);
    const TileForward io = {backgrounds.at(b),
                            image->typed_data() + b * height * width * splats.channels,
                            alpha->typed_data() + b * height * width};
    parallel_for(pool, static_cast<int64_t>(bins.tiles_x) * bins.tiles_y,
                 [&](int64_t k) { kernels().blend(tile_at(scene, bins, bins.schedule[k]), io); });
  }
  return ffi::Error::Success();
}

ffi::Error rasterize_bwd(F32 means2d, F32 depths, F32 conics, S32 radii, F32 colors, F32 opacities,
                         F32 image, F32 alpha, F32 v_image, F32 v_alpha, F32Out v_means2d,
                         F32Out v_conics, F32Out v_colors, F32Out v_opacities, F32Out v_background,
                         ffi::ThreadPool pool) {
  Batch batch;
  FG_TRY(batch_of("the gradient of opacities [..., N]", *v_opacities, 1, &batch));
  Splats splats;
  PictureGrad picture;
  FG_TRY(bind_splats(batch, means2d, depths, conics, radii, colors, opacities, &splats));
  const int64_t n = splats.n, D = splats.channels;
  FG_TRY(bind_picture(batch, D, image, alpha, v_image, v_alpha, &picture));
  Bins& bins = arena;
  for (int64_t b = 0; b < batch.count; ++b) {
    const Scene scene = scene_at(splats, b, picture.width, picture.height);
    FG_TRY(bin_scene(pool, scene, &bins));
    const int64_t tiles = static_cast<int64_t>(bins.tiles_x) * bins.tiles_y;
    float* sums = bins.sums.reserve(bins.entries * slot_stride(D));
    float* tile_sums = bins.tile_sums.reserve(tiles * D);
    parallel_for(pool, tiles, [&](int64_t k) {
      const int32_t t = bins.schedule[k];
      const TileBackward io = {picture.image.at(b),     picture.alpha.at(b),
                               picture.v_image.at(b),   picture.v_alpha.at(b),
                               bins.first_slots.data(), sums,
                               tile_sums + t * D};
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

using xla::ffi::ThreadPool;

XLA_FFI_DEFINE_HANDLER_SYMBOL(fg3dgs_project_fwd, fg::project_fwd,
                              fg::project_fwd_call().Ctx<ThreadPool>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(fg3dgs_project_bwd, fg::project_bwd,
                              fg::project_bwd_call().Ctx<ThreadPool>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(fg3dgs_rasterize_fwd, fg::rasterize_fwd,
                              fg::rasterize_fwd_call().Ctx<ThreadPool>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(fg3dgs_rasterize_bwd, fg::rasterize_bwd,
                              xla::ffi::Ffi::Bind()
                                  .Arg<fg::F32>()  // means2d [..., N, 2]
                                  .Arg<fg::F32>()  // depths [..., N]
                                  .Arg<fg::F32>()  // conics [..., N, 3]
                                  .Arg<fg::S32>()  // radii [..., N, 2]
                                  .Arg<fg::F32>()  // colors [..., N, D]
                                  .Arg<fg::F32>()  // opacities [..., N]
                                  .Arg<fg::F32>()  // image [..., H, W, D]
                                  .Arg<fg::F32>()  // alpha [..., H, W]
                                  .Arg<fg::F32>()  // cotangent of image
                                  .Arg<fg::F32>()  // ... alpha
                                  .Ret<fg::F32>()  // gradient of means2d [..., N, 2]
                                  .Ret<fg::F32>()  // ... conics [..., N, 3]
                                  .Ret<fg::F32>()  // ... colors [..., N, D]
                                  .Ret<fg::F32>()  // ... opacities [..., N]
                                  .Ret<fg::F32>()  // ... background [..., D]
                                  .Ctx<ThreadPool>());
