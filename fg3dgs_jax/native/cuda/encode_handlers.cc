// The XLA FFI doors of the encoding on a GPU.
#include <string>

#include "core/encode_operands.h"
#include "cuda/encode_kernels.h"

namespace fg {
namespace {

constexpr int64_t kMaxTriples = 0x7FFFFFFF - 1024;  // counts are 32 bits

ffi::Error check(cudaError_t error) {
  if (error == cudaSuccess) return ffi::Error::Success();
  return ffi::Error::Internal(std::string("hash encoding: CUDA: ") + cudaGetErrorString(error));
}

ffi::Error encode_fwd(F32 tables, F32 coords, F32Out features, Ints resolutions, Floats scales,
                      Ints offsets, float bound, cudaStream_t stream) {
  Levels levels;
  FG_TRY(check_encoding(resolutions, scales, offsets, bound, tables, coords, &levels));
  FG_TRY(check_features(levels, coords, *features));
  const int64_t n = coords.dimensions()[0];
  if (n * levels.features() > kMaxTriples)
    return ffi::Error::InvalidArgument("hash encoding: more than 2^31 features");
  return check(
      encode(stream, levels, tables.typed_data(), coords.typed_data(), n, features->typed_data()));
}

ffi::Error encode_bwd(F32 tables, F32 coords, F32 v_features, F32Out v_tables, F32Out v_coords,
                      Ints resolutions, Floats scales, Ints offsets, float bound, U8Out work,
                      cudaStream_t stream) {
  Levels levels;
  FG_TRY(check_encoding(resolutions, scales, offsets, bound, tables, coords, &levels));
  FG_TRY(check_cotangents(levels, tables, coords, v_features, *v_tables, *v_coords));
  const int64_t n = coords.dimensions()[0], triples = n * levels.features();
  const int64_t entries = static_cast<int64_t>(tables.element_count());
  if (triples > kMaxTriples || 32 * entries > int64_t{kMaxTriples} * 256)
    return ffi::Error::InvalidArgument("hash encoding: more than 2^31 features or entries");
  if (static_cast<int64_t>(work->size_bytes()) <
      EncodeGradLayout(n, levels.features(), entries).bytes) {
    return ffi::Error::InvalidArgument("hash encoding: the workspace is too small");
  }
  return check(encode_vjp(stream, levels,
                          {tables.typed_data(), coords.typed_data(), v_features.typed_data(),
                           v_tables->typed_data(), v_coords->typed_data(), work->untyped_data()},
                          n));
}

}  // namespace
}  // namespace fg

extern "C" int64_t fg3dgs_encode_grad_bytes(int64_t n, int64_t features, int64_t entries) {
  return fg::EncodeGradLayout(n, features, entries).bytes;
}

namespace ffi = xla::ffi;
using Stream = ffi::PlatformStream<cudaStream_t>;

XLA_FFI_DEFINE_HANDLER_SYMBOL(fg3dgs_encode_fwd, fg::encode_fwd,
                              fg::encode_fwd_call().Ctx<Stream>(),
                              {ffi::Traits::kCmdBufferCompatible});

XLA_FFI_DEFINE_HANDLER_SYMBOL(fg3dgs_encode_bwd, fg::encode_bwd,
                              fg::encode_bwd_call()
                                  .Ret<fg::U8>()  // workspace
                                  .Ctx<Stream>(),
                              {ffi::Traits::kCmdBufferCompatible});
