// The XLA FFI door of SSIM on a GPU.
#include <string>

#include "core/ssim_operands.h"
#include "cuda/ssim_kernels.h"

namespace fg {
namespace {

constexpr int64_t kMaxPictures = 65535;  // rows of a grid
constexpr int64_t kMaxTiles = 0x7FFFFFFF;

int64_t workspace_bytes(int64_t height, int64_t width, int64_t channels) {
  return 4 * ssim_tiles(height, width, channels);
}

ffi::Error ssim_fwd(F32 x, F32 y, F32Out distance, F32Out v_x, U8Out work, cudaStream_t stream) {
  SsimSize size;
  FG_TRY(check_ssim(x, y, *distance, *v_x, &size));
  const auto [pictures, height, width, channels] = size;
  if (pictures > kMaxPictures || ssim_tiles(height, width, channels) > kMaxTiles)
    return refuse("ssim: more than 65535 pictures in one call, or one of more than 2^31 tiles");
  if (static_cast<int64_t>(work->size_bytes()) <
      pictures * workspace_bytes(height, width, channels)) {
    return refuse("ssim: the workspace is too small");
  }
  const SsimPictures in = {x.typed_data(), y.typed_data(), pictures, height, width, channels};
  const cudaError_t error =
      ssim(stream, in,
           {distance->typed_data(), v_x->typed_data(), static_cast<float*>(work->untyped_data())});
  if (error == cudaSuccess) return ffi::Error::Success();
  return ffi::Error::Internal(std::string("fg3dgs: CUDA: ") + cudaGetErrorString(error));
}

}  // namespace
}  // namespace fg

extern "C" int64_t fg3dgs_ssim_bytes(int64_t height, int64_t width, int64_t channels) {
  return fg::workspace_bytes(height, width, channels);
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(fg3dgs_ssim, fg::ssim_fwd,
                              fg::ssim_call()
                                  .Ret<fg::U8>()  // workspace
                                  .Ctx<xla::ffi::PlatformStream<cudaStream_t>>(),
                              {xla::ffi::Traits::kCmdBufferCompatible});
