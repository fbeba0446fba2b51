// The tri-plane encoding of models/hash_encoding.py (H_3 of eqs. 7 and 9) as custom calls. That
// file is the definition.
//
// XLA's CPU scatter-add walks updates one by one on one thread. Here every (plane, level) table has
// one owner, which adds the points in order: no atomics, and the same bits for any number of
// threads.

#include <algorithm>
#include <cstdint>

#include "core/encode_operands.h"
#include "cpu/buffer.h"
#include "cpu/encode_kernels.h"
#include "cpu/parallel.h"

namespace fg {
namespace {

int64_t blocks_of(int64_t n) { return (n + kEncodeBlock - 1) / kEncodeBlock; }

ffi::Error encode_fwd(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> tables,
                      ffi::Buffer<ffi::F32> coords, ffi::ResultBuffer<ffi::F32> features,
                      ffi::Span<const int32_t> resolutions, ffi::Span<const float> scales,
                      ffi::Span<const int32_t> offsets, float bound) {
  Levels levels;
  if (ffi::Error error =
          check_encoding(resolutions, scales, offsets, bound, tables, coords, &levels);
      error.failure()) {
    return error;
  }
  const int64_t n = coords.dimensions()[0];
  const int64_t width = levels.features();
  if (static_cast<int64_t>(features->element_count()) != n * width) {
    return ffi::Error::InvalidArgument("hash encoding: features must be [N, 3 * levels]");
  }
  const auto kernel = FG_CHOOSE(encode);
  parallel_for(pool, blocks_of(n), [&](int64_t block) {
    kernel(levels, tables.typed_data(), coords.typed_data(), features->typed_data(),
           block * kEncodeBlock, std::min(n, (block + 1) * kEncodeBlock));
  });
  return ffi::Error::Success();
}

ffi::Error encode_bwd(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> tables,
                      ffi::Buffer<ffi::F32> coords, ffi::Buffer<ffi::F32> v_features,
                      ffi::ResultBuffer<ffi::F32> v_tables, ffi::ResultBuffer<ffi::F32> v_coords,
                      ffi::Span<const int32_t> resolutions, ffi::Span<const float> scales,
                      ffi::Span<const int32_t> offsets, float bound) {
  Levels levels;
  if (ffi::Error error =
          check_encoding(resolutions, scales, offsets, bound, tables, coords, &levels);
      error.failure()) {
    return error;
  }
  const int64_t n = coords.dimensions()[0];
  if (static_cast<int64_t>(v_features.element_count()) != n * levels.features() ||
      v_tables->element_count() != tables.element_count() ||
      v_coords->element_count() != coords.element_count()) {
    return ffi::Error::InvalidArgument(
        "hash encoding: cotangents do not have the shapes of their arguments");
  }
  const int64_t blocks = blocks_of(n), stride = blocks * kEncodeBlock;
  static thread_local Buffer<float> arena;
  float* memory = arena.reserve((3 + levels.features()) * stride);
  const EncodeColumns columns = {memory, memory + 3 * stride, stride};
  const auto coords_vjp = FG_CHOOSE(encode_coords_vjp);
  const auto table_vjp = FG_CHOOSE(encode_table_vjp);
  parallel_for(pool, blocks, [&](int64_t block) {
    coords_vjp(levels, tables.typed_data(), coords.typed_data(), v_features.typed_data(),
               v_coords->typed_data(), columns, block * kEncodeBlock,
               std::min(n, (block + 1) * kEncodeBlock));
  });
  parallel_for(pool, levels.features(), [&](int64_t owned) {
    table_vjp(levels, columns, v_tables->typed_data(), static_cast<int>(owned) / levels.count,
              static_cast<int>(owned) % levels.count, n);
  });
  return ffi::Error::Success();
}

}  // namespace
}  // namespace fg

XLA_FFI_DEFINE_HANDLER_SYMBOL(fg3dgs_encode_fwd, fg::encode_fwd,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()  // tables
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()  // coords
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>()  // features
                                  .Attr<xla::ffi::Span<const int32_t>>("resolutions")
                                  .Attr<xla::ffi::Span<const float>>("scales")
                                  .Attr<xla::ffi::Span<const int32_t>>("offsets")
                                  .Attr<float>("bound"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(fg3dgs_encode_bwd, fg::encode_bwd,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()  // tables
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()  // coords
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()  // v_features
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>()  // v_tables
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>()  // v_coords
                                  .Attr<xla::ffi::Span<const int32_t>>("resolutions")
                                  .Attr<xla::ffi::Span<const float>>("scales")
                                  .Attr<xla::ffi::Span<const int32_t>>("offsets")
                                  .Attr<float>("bound"));
