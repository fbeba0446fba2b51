// The XLA FFI doors of the CUDA kernels: decode buffers, check shapes, queue launches. Nothing here
// reads device memory or waits, and all memory is XLA's, so XLA may capture the calls in a graph.
#include <string>

#include "core/operands.h"
#include "cuda/kernels.h"

namespace fg {
namespace {

using U8 = ffi::Buffer<ffi::U8>;
using U8Out = ffi::Result<U8>;

constexpr int64_t kMaxIndex = 0x7FFFFFFF - 1024;  // indices and CUB's counts are 32 bits
constexpr int64_t kMaxImages = 65535;             // rows of a grid
constexpr int64_t kMaxSide = 32767 * kTileSize;   // px; a TileRect has 16 bits

ffi::Error refuse(const std::string& what) {
  return ffi::Error::InvalidArgument("fg3dgs: " + what);
}

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
  if (s.channels < 1 || s.channels > kMaxChannels) return refuse("1 to 32 colour channels");
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

#define FG_CHECK(expression) \
  if (auto error = expression; error.failure()) return error

template <typename T>
T* area(void* base, int64_t offset) {
  return reinterpret_cast<T*>(static_cast<char*>(base) + offset);
}

State state_at(void* base, const StateLayout& at) {
  return {area<Record>(base, at.records), area<Run>(base, at.runs), area<Entry>(base, at.entries),
          area<int32_t>(base, at.tile_begin)};
}

BinWork work_at(void* base, const BinLayout& at) {
  BinWork w;
  w.rects = area<TileRect>(base, at.rects);
  w.offsets = area<uint32_t>(base, at.offsets);
  w.owners = area<uint32_t>(base, at.owners);
  for (int k = 0; k < 2; ++k) {
    w.keys[k] = area<uint32_t>(base, at.keys[k]);
    w.order[k] = area<uint32_t>(base, at.order[k]);
    w.tile_keys[k] = area<uint32_t>(base, at.tile_keys[k]);
    w.slots[k] = area<uint32_t>(base, at.slots[k]);
  }
  w.temp = area<void>(base, at.temp);
  w.temp_bytes = static_cast<size_t>(at.temp_bytes);
  return w;
}

ffi::Error project_fwd(cudaStream_t stream, F32 means_, F32 quats_, F32 scales_, F32 opacities_,
                       F32 pose_, F32 intrinsics_, F32Out means2d, F32Out depths, F32Out conics,
                       S32Out radii, F32Out comps, int64_t width, int64_t height, float eps2d,
                       float near, float far, bool antialiased) {
  const Batch batch = batch_of(*depths, 1);
  if (batch.rank < 0) return refuse("depths must be [..., N]");
  const int64_t n = depths->dimensions().back();
  FG_BIND(float, means, means_, {n, 3});
  FG_BIND(float, quats, quats_, {n, 4});
  FG_BIND(float, scales, scales_, {n, 3});
  FG_BIND(float, opacities, opacities_, {n});
  FG_BIND(float, pose, pose_, {4, 4});
  FG_BIND(float, intrinsics, intrinsics_, {4});
  const Sizes s = {batch.count, n, width, height, 0, 0};
  FG_CHECK(check(s));
  const ProjectIn in = {means, quats,  scales, opacities, pose, intrinsics,
                        width, height, eps2d,  near,      far,  antialiased};
  const ProjectOut out = {means2d->typed_data(), depths->typed_data(), conics->typed_data(),
                          comps->typed_data(), radii->typed_data()};
  return check(project(stream, s, in, out));
}

ffi::Error project_bwd(cudaStream_t stream, F32 means_, F32 quats_, F32 scales_, F32 pose_,
                       F32 intrinsics_, S32 radii_, F32 v_means2d_, F32 v_depths_, F32 v_conics_,
                       F32 v_comps_, F32Out v_means, F32Out v_quats, F32Out v_scales, F32Out v_pose,
                       U8Out work, int64_t width, int64_t height, float eps2d, float near,
                       float far, bool antialiased) {
  const Batch batch = batch_of(*v_means, 2);
  if (batch.rank < 0) return refuse("the gradient of means must be [..., N, 3]");
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
  const Sizes s = {batch.count, n, width, height, 0, 0};
  FG_CHECK(check(s));
  FG_CHECK(check_bytes("workspace", work->size_bytes(), ProjectGradLayout(s.batch, n).bytes));
  const ProjectIn in = {means, quats,  scales, {},   pose, intrinsics,
                        width, height, eps2d,  near, far,  antialiased};
  const ProjectGrad g = {radii,
                         v_means2d,
                         v_depths,
                         v_conics,
                         v_comps,
                         v_means->typed_data(),
                         v_quats->typed_data(),
                         v_scales->typed_data(),
                         v_pose->typed_data(),
                         static_cast<float*>(work->untyped_data())};
  return check(project_vjp(stream, s, in, g));
}

ffi::Error rasterize_fwd(cudaStream_t stream, F32 means2d_, F32 depths_, F32 conics_, S32 radii_,
                         F32 colors_, F32 opacities_, F32 background_, F32Out image, F32Out alpha,
                         S32Out n_isects, S32Out n_dropped, U8Out state, U8Out work,
                         int64_t capacity) {
  const Batch batch = batch_of(*alpha, 2);
  if (batch.rank < 0 || depths_.dimensions().size() == 0 || image->dimensions().size() == 0)
    return refuse("alpha must be [..., H, W], depths [..., N], image [..., H, W, D]");
  const int64_t height = alpha->dimensions()[batch.rank],
                width = alpha->dimensions()[batch.rank + 1];
  const int64_t D = image->dimensions().back(), n = depths_.dimensions().back();
  FG_BIND(float, means2d, means2d_, {n, 2});
  FG_BIND(float, depths, depths_, {n});
  FG_BIND(float, conics, conics_, {n, 3});
  FG_BIND(int32_t, radii, radii_, {n, 2});
  FG_BIND(float, colors, colors_, {n, D});
  FG_BIND(float, opacities, opacities_, {n});
  FG_BIND(float, background, background_, {D});
  const Sizes s = {batch.count, n, width, height, D, capacity};
  FG_CHECK(check_blend(s));
  const StateLayout kept(s);
  const BinLayout dropped(s);
  FG_CHECK(check_bytes("state", state->size_bytes(), kept.bytes));
  FG_CHECK(check_bytes("workspace", work->size_bytes(), dropped.bytes));
  if (static_cast<int64_t>(n_isects->element_count()) != s.batch ||
      static_cast<int64_t>(n_dropped->element_count()) != s.batch)
    return refuse("counts must be [...]");
  const State bins = state_at(state->untyped_data(), kept);
  const Splats splats = {means2d, depths, conics, colors, opacities, radii};
  const Counts counts = {n_isects->typed_data(), n_dropped->typed_data()};
  FG_CHECK(check(bin(stream, s, splats, work_at(work->untyped_data(), dropped), bins, counts)));
  return check(
      blend(stream, s, bins, colors, background, image->typed_data(), alpha->typed_data()));
}

ffi::Error rasterize_bwd(cudaStream_t stream, F32 colors_, F32 image_, F32 alpha_, U8 state,
                         F32 v_image_, F32 v_alpha_, F32Out v_means2d, F32Out v_conics,
                         F32Out v_colors, F32Out v_opacities, F32Out v_background, U8Out work,
                         int64_t capacity) {
  const Batch batch = batch_of(*v_opacities, 1);
  const auto alpha_dims = alpha_.dimensions();
  if (batch.rank < 0 || alpha_dims.size() < 2 || v_background->dimensions().size() == 0)
    return refuse("alpha must be [..., H, W], the gradient of opacities [..., N]");
  const int64_t n = v_opacities->dimensions().back(), D = v_background->dimensions().back();
  const int64_t height = alpha_dims[alpha_dims.size() - 2],
                width = alpha_dims[alpha_dims.size() - 1];
  FG_BIND(float, colors, colors_, {n, D});
  FG_BIND(float, image, image_, {height, width, D});
  FG_BIND(float, alpha, alpha_, {height, width});
  FG_BIND(float, v_image, v_image_, {height, width, D});
  FG_BIND(float, v_alpha, v_alpha_, {height, width});
  const Sizes s = {batch.count, n, width, height, D, capacity};
  FG_CHECK(check_blend(s));
  const StateLayout kept(s);
  const BlendGradLayout dropped(s);
  FG_CHECK(check_bytes("state", state.size_bytes(), kept.bytes));
  FG_CHECK(check_bytes("workspace", work->size_bytes(), dropped.bytes));
  void* base = work->untyped_data();
  const BlendGradIn in = {image,
                          alpha,
                          v_image,
                          v_alpha,
                          area<float>(base, dropped.slot_sums),
                          area<float>(base, dropped.tile_sums)};
  const BlendGradOut out = {v_means2d->typed_data(), v_conics->typed_data(), v_colors->typed_data(),
                            v_opacities->typed_data(), v_background->typed_data()};
  return check(blend_vjp(stream, s, state_at(state.untyped_data(), kept), colors, in, out));
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
                              ffi::Ffi::Bind()
                                  .Ctx<Stream>()
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
                                  .Attr<bool>("antialiased"),
                              {ffi::Traits::kCmdBufferCompatible});

XLA_FFI_DEFINE_HANDLER_SYMBOL(fg3dgs_project_bwd, fg::project_bwd,
                              ffi::Ffi::Bind()
                                  .Ctx<Stream>()
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
                                  .Ret<fg::U8>()   // workspace
                                  .Attr<int64_t>("width")
                                  .Attr<int64_t>("height")
                                  .Attr<float>("eps2d")
                                  .Attr<float>("near")
                                  .Attr<float>("far")
                                  .Attr<bool>("antialiased"),
                              {ffi::Traits::kCmdBufferCompatible});

XLA_FFI_DEFINE_HANDLER_SYMBOL(fg3dgs_rasterize_fwd, fg::rasterize_fwd,
                              ffi::Ffi::Bind()
                                  .Ctx<Stream>()
                                  .Arg<fg::F32>()  // means2d [..., N, 2]
                                  .Arg<fg::F32>()  // depths [..., N]
                                  .Arg<fg::F32>()  // conics [..., N, 3]
                                  .Arg<fg::S32>()  // radii [..., N, 2]
                                  .Arg<fg::F32>()  // colors [..., N, D]
                                  .Arg<fg::F32>()  // opacities [..., N]
                                  .Arg<fg::F32>()  // background [..., D]
                                  .Ret<fg::F32>()  // image [..., H, W, D]
                                  .Ret<fg::F32>()  // alpha [..., H, W]
                                  .Ret<fg::S32>()  // n_isects [...]
                                  .Ret<fg::S32>()  // pairs that found no slot [...]
                                  .Ret<fg::U8>()   // state for the backward
                                  .Ret<fg::U8>()   // workspace
                                  .Attr<int64_t>("capacity"),
                              {ffi::Traits::kCmdBufferCompatible});

XLA_FFI_DEFINE_HANDLER_SYMBOL(fg3dgs_rasterize_bwd, fg::rasterize_bwd,
                              ffi::Ffi::Bind()
                                  .Ctx<Stream>()
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
                                  .Attr<int64_t>("capacity"),
                              {ffi::Traits::kCmdBufferCompatible});
