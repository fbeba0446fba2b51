// The XLA FFI doors of the encoding on a GPU.
#include <string>

#include "core/encode_operands.h"
#include "cuda/encode_kernels.h"

namespace fg {
namespace {

using F32 = ffi::Buffer<ffi::F32>;
using F32Out = ffi::Result<F32>;

constexpr int64_t kMaxTriples = 0x7FFFFFFF - 1024;  // CUB counts in 32 bits

ffi::Error check(cudaError_t error) {
  if (error == cudaSuccess) return ffi::Error::Success();
  return ffi::Error::Internal(std::string("hash encoding: CUDA: ") + cudaGetErrorString(error));
}

ffi::Error encode_fwd(cudaStream_t stream, F32 tables, F32 coords, F32Out features,
                      ffi::Span<const int32_t> resolutions, ffi::Span<const float> scales,
                      ffi::Span<const int32_t> offsets, float bound) {
  Levels levels;
  if (auto error = check_encoding(resolutions, scales, offsets, bound, tables, coords, &levels);
      error.failure()) {
    return error;
  }
  const int64_t n = coords.dimensions()[0];
  if (static_cast<int64_t>(features->element_count()) != n * levels.features())
    return ffi::Error::InvalidArgument("hash encoding: features must be [N, 3 * levels]");
  if (n * levels.features() > kMaxTriples)
    return ffi::Error::InvalidArgument("hash encoding: more than 2^31 features");
  return check(
      encode(stream, levels, tables.typed_data(), coords.typed_data(), n, features->typed_data()));
}

ffi::Error encode_bwd(cudaStream_t stream, F32 tables, F32 coords, F32 v_features, F32Out v_tables,
                      F32Out v_coords, ffi::Result<ffi::Buffer<ffi::U8>> work,
                      ffi::Span<const int32_t> resolutions, ffi::Span<const float> scales,
                      ffi::Span<const int32_t> offsets, float bound) {
  Levels levels;
  if (auto error = check_encoding(resolutions, scales, offsets, bound, tables, coords, &levels);
      error.failure()) {
    return error;
  }
  const int64_t n = coords.dimensions()[0], triples = n * levels.features();
  if (static_cast<int64_t>(v_features.element_count()) != triples ||
      v_tables->element_count() != tables.element_count() ||
      v_coords->element_count() != coords.element_count()) {
    return ffi::Error::InvalidArgument(
        "hash encoding: cotangents do not have the shapes of their arguments");
  }
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
                              ffi::Ffi::Bind()
                                  .Ctx<Stream>()
                                  .Arg<fg::F32>()  // tables [entries]
                                  .Arg<fg::F32>()  // coords [N, 3]
                                  .Ret<fg::F32>()  // features [N, 3 * levels]
                                  .Attr<ffi::Span<const int32_t>>("resolutions")
                                  .Attr<ffi::Span<const float>>("scales")
                                  .Attr<ffi::Span<const int32_t>>("offsets")
                                  .Attr<float>("bound"),
                              {ffi::Traits::kCmdBufferCompatible});

XLA_FFI_DEFINE_HANDLER_SYMBOL(fg3dgs_encode_bwd, fg::encode_bwd,
                              ffi::Ffi::Bind()
                                  .Ctx<Stream>()
                                  .Arg<fg::F32>()               // tables [entries]
                                  .Arg<fg::F32>()               // coords [N, 3]
                                  .Arg<fg::F32>()               // cotangent of features
                                  .Ret<fg::F32>()               // gradient of tables
                                  .Ret<fg::F32>()               // ... coords
                                  .Ret<ffi::Buffer<ffi::U8>>()  // workspace
                                  .Attr<ffi::Span<const int32_t>>("resolutions")
                                  .Attr<ffi::Span<const float>>("scales")
                                  .Attr<ffi::Span<const int32_t>>("offsets")
                                  .Attr<float>("bound"),
                              {ffi::Traits::kCmdBufferCompatible});
