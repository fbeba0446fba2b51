// The XLA FFI doors of the CUDA kernels: check and bind buffers, queue launches. Nothing here
// reads device memory or waits, and all memory is XLA's, so XLA may capture the calls in a graph.
#include <string>

#include "core/rasterizer_operands.h"
#include "cuda/kernels.h"

namespace fg {
namespace {

constexpr int64_t kMaxIndex = 0x7FFFFFFF - 1024;  // indices and counts are 32 bits
constexpr int64_t kMaxImages = 65535;             // rows of a grid
constexpr int64_t kMaxSide = 32767 * kTileSize;   // px; a TileRect has 16 bits

ffi::Error check(cudaError_t error) {
  if (error == cudaSuccess) return ffi::Error::Success();
  return ffi::Error::Internal(std::string("fg3dgs: CUDA: ") + cudaGetErrorString(error));
}

ffi::Error check(const Sizes& s) {
  if (s.batch > kMaxImages) return refuse("more than 65535 images in one call");
  if (s.items() > kMaxIndex) return refuse("more than 2^31 Gaussians in one call");
  return ffi::Error::Success();
}

ffi::Error check_blend(const Sizes& s) {
  FG_TRY(check_channels(s.channels));
  if (s.width < 1 || s.height < 1 || s.width > kMaxSide || s.height > kMaxSide)
    return refuse("a picture has 1 to 524272 px a side");
  if (s.capacity < 1 || s.capacity > kMaxIndex || s.pool() > kMaxIndex)
    return refuse("isect_capacity times the images must lie between 1 and 2^31");
  if (s.tiles() > kMaxIndex) return refuse("more than 2^31 tiles in one call");
  return check(s);
}

ffi::Error check_bytes(const char* name, int64_t found, int64_t needed) {
  if (found >= needed) return ffi::Error::Success();
  return refuse(std::string(name) + " has " + std::to_string(found) + " bytes; expected " +
                std::to_string(needed) + " (a gradient cannot be mapped without its forward)");
}

ffi::Error project_fwd(F32 means, F32 quats, F32 scales, F32 opacities, F32 pose, F32 intrinsics,
                       F32Out means2d, F32Out depths, F32Out conics, S32Out radii, F32Out comps,
                       int64_t width, int64_t height, float eps2d, float near, float far,
                       bool antialiased, cudaStream_t stream) {
  Batch batch;
  FG_TRY(batch_of("depths [..., N]", *depths, 1, &batch));
  ProjectIn in;
  const int64_t n = in.n = depths->dimensions().back();
  in.options = {width, height, eps2d, near, far, antialiased};
  FG_TRY(bind_gaussians(batch, means, quats, scales, pose, intrinsics, &in));
  FG_TRY(bind("opacities", opacities, batch, {n}, &in.opacities));
  const Sizes s = {batch.count, n, width, height, 0, 0};
  FG_TRY(check(s));
  const ProjectOut out = {means2d->typed_data(), depths->typed_data(), conics->typed_data(),
                          comps->typed_data(), radii->typed_data()};
  return check(project(stream, s, in, out));
}

ffi::Error project_bwd(F32 means, F32 quats, F32 scales, F32 pose, F32 intrinsics, S32 radii,
                       F32 v_means2d, F32 v_depths, F32 v_conics, F32 v_comps, F32Out v_means,
                       F32Out v_quats, F32Out v_scales, F32Out v_pose, int64_t width,
                       int64_t height, float eps2d, float near, float far, bool antialiased,
                       U8Out work, cudaStream_t stream) {
  Batch batch;
  FG_TRY(batch_of("the gradient of means [..., N, 3]", *v_means, 2, &batch));
  ProjectIn in = {};  // without opacities
  ProjectCotangents v;
  const int64_t n = in.n = v_means->dimensions()[batch.rank];
  in.options = {width, height, eps2d, near, far, antialiased};
  FG_TRY(bind_gaussians(batch, means, quats, scales, pose, intrinsics, &in));
  FG_TRY(bind_cotangents(batch, n, radii, v_means2d, v_depths, v_conics, v_comps, &v));
  const Sizes s = {batch.count, n, width, height, 0, 0};
  FG_TRY(check(s));
  FG_TRY(check_bytes("workspace", work->size_bytes(), ProjectGradLayout(s.batch, n).bytes));
  const ProjectGrad g = {v,
                         v_means->typed_data(),
                         v_quats->typed_data(),
                         v_scales->typed_data(),
                         v_pose->typed_data(),
                         static_cast<float*>(work->untyped_data())};
  return check(project_vjp(stream, s, in, g));
}

ffi::Error rasterize_fwd(F32 means2d, F32 depths, F32 conics, S32 radii, F32 colors, F32 opacities,
                         F32 background, F32Out image, F32Out alpha, S32Out n_isects,
                         S32Out overflow, U8Out state, U8Out work, int64_t capacity,
                         cudaStream_t stream) {
  Batch batch;
  FG_TRY(batch_of("alpha [..., H, W]", *alpha, 2, &batch));
  const int64_t height = alpha->dimensions()[batch.rank];
  const int64_t width = alpha->dimensions()[batch.rank + 1];
  Splats splats;
  Batched<float> backgrounds;
  FG_TRY(bind_splats(batch, means2d, depths, conics, radii, colors, opacities, &splats));
  FG_TRY(bind("background", background, batch, {splats.channels}, &backgrounds));
  const Sizes s = {batch.count, splats.n, width, height, splats.channels, capacity};
  FG_TRY(check_blend(s));
  const StateLayout kept(s);
  const BinLayout dropped(s);
  FG_TRY(check_bytes("state", state->size_bytes(), kept.bytes));
  FG_TRY(check_bytes("workspace", work->size_bytes(), dropped.bytes));
  if (static_cast<int64_t>(n_isects->element_count()) != s.batch ||
      static_cast<int64_t>(overflow->element_count()) != s.batch)
    return refuse("counts must be [...]");
  const State bins = state_at(state->untyped_data(), kept);
  const Counts counts = {n_isects->typed_data(), overflow->typed_data()};
  FG_TRY(check(bin(stream, s, splats, work_at(work->untyped_data(), dropped), bins, counts)));
  return check(
      blend(stream, s, bins, splats.colors, backgrounds, image->typed_data(), alpha->typed_data()));
}

ffi::Error rasterize_bwd(F32 colors, F32 image, F32 alpha, U8 state, F32 v_image, F32 v_alpha,
                         F32Out v_means2d, F32Out v_conics, F32Out v_colors, F32Out v_opacities,
                         F32Out v_background, U8Out work, int64_t capacity, cudaStream_t stream) {
  Batch batch;
  FG_TRY(batch_of("the gradient of opacities [..., N]", *v_opacities, 1, &batch));
  if (v_background->dimensions().size() == 0)
    return refuse("expected the gradient of background [..., D]");
  const int64_t n = v_opacities->dimensions().back(), D = v_background->dimensions().back();
  Batched<float> colours;
  PictureGrad picture;
  FG_TRY(bind("colors", colors, batch, {n, D}, &colours));
  FG_TRY(bind_picture(batch, D, image, alpha, v_image, v_alpha, &picture));
  const Sizes s = {batch.count, n, picture.width, picture.height, D, capacity};
  FG_TRY(check_blend(s));
  const StateLayout kept(s);
  const BlendGradLayout dropped(s);
  FG_TRY(check_bytes("state", state.size_bytes(), kept.bytes));
  FG_TRY(check_bytes("workspace", work->size_bytes(), dropped.bytes));
  void* base = work->untyped_data();
  const BlendGradIn in = {picture, area<float>(base, dropped.slot_sums),
                          area<float>(base, dropped.tile_sums)};
  const BlendGradOut out = {v_means2d->typed_data(), v_conics->typed_data(), v_colors->typed_data(),
                            v_opacities->typed_data(), v_background->typed_data()};
  return check(blend_vjp(stream, s, state_at(state.untyped_data(), kept), colours, in, out));
}

}  // namespace
}  // namespace fg

// Bytes that one image brings to a call's buffers, for Python to declare them with.
extern "C" {
int64_t fg3dgs_state_bytes(int64_t n, int64_t width, int64_t height, int64_t channels,
                           int64_t capacity) {
  return fg::StateLayout({1, n, width, height, channels, capacity}).bytes;
}
int64_t fg3dgs_bin_bytes(int64_t n, int64_t width, int64_t height, int64_t channels,
                         int64_t capacity) {
  return fg::BinLayout({1, n, width, height, channels, capacity}).bytes;
}
int64_t fg3dgs_blend_grad_bytes(int64_t n, int64_t width, int64_t height, int64_t channels,
                                int64_t capacity) {
  return fg::BlendGradLayout({1, n, width, height, channels, capacity}).bytes;
}
int64_t fg3dgs_project_grad_bytes(int64_t n) { return fg::ProjectGradLayout(1, n).bytes; }
}

namespace ffi = xla::ffi;
using Stream = ffi::PlatformStream<cudaStream_t>;

XLA_FFI_DEFINE_HANDLER_SYMBOL(fg3dgs_project_fwd, fg::project_fwd,
                              fg::project_fwd_call().Ctx<Stream>(),
                              {ffi::Traits::kCmdBufferCompatible});

XLA_FFI_DEFINE_HANDLER_SYMBOL(fg3dgs_project_bwd, fg::project_bwd,
                              fg::project_bwd_call()
                                  .Ret<fg::U8>()  // workspace
                                  .Ctx<Stream>(),
                              {ffi::Traits::kCmdBufferCompatible});

XLA_FFI_DEFINE_HANDLER_SYMBOL(fg3dgs_rasterize_fwd, fg::rasterize_fwd,
                              fg::rasterize_fwd_call()
                                  .Ret<fg::S32>()  // 1 where pairs found no slot [...]
                                  .Ret<fg::U8>()   // state for the backward
                                  .Ret<fg::U8>()   // workspace
                                  .Attr<int64_t>("capacity")
                                  .Ctx<Stream>(),
                              {ffi::Traits::kCmdBufferCompatible});

XLA_FFI_DEFINE_HANDLER_SYMBOL(fg3dgs_rasterize_bwd, fg::rasterize_bwd,
                              ffi::Ffi::Bind()
                                  .Arg<fg::F32>()  // colors [..., N, D]
                                  .Arg<fg::F32>()  // image [..., H, W, D]
                                  .Arg<fg::F32>()  // alpha [..., H, W]
                                  .Arg<fg::U8>()   // state of the forward
                                  .Arg<fg::F32>()  // cotangent of image
                                  .Arg<fg::F32>()  // ... alpha
                                  .Ret<fg::F32>()  // gradient of means2d [..., N, 2]
                                  .Ret<fg::F32>()  // ... conics [..., N, 3]
                                  .Ret<fg::F32>()  // ... colors [..., N, D]
                                  .Ret<fg::F32>()  // ... opacities [..., N]
                                  .Ret<fg::F32>()  // ... background [..., D]
                                  .Ret<fg::U8>()   // workspace
                                  .Attr<int64_t>("capacity")
                                  .Ctx<Stream>(),
                              {ffi::Traits::kCmdBufferCompatible});
