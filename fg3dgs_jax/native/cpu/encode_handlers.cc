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

ffi::Error encode_fwd(F32 tables, F32 coords, F32Out features, Ints resolutions, Floats scales,
                      Ints offsets, float bound, ffi::ThreadPool pool) {
  Levels levels;
  FG_TRY(check_encoding(resolutions, scales, offsets, bound, tables, coords, &levels));
  FG_TRY(check_features(levels, coords, *features));
  const int64_t n = coords.dimensions()[0];
  const auto kernel = FG_CHOOSE(encode);
  parallel_for(pool, blocks_of(n), [&](int64_t block) {
    kernel(levels, tables.typed_data(), coords.typed_data(), features->typed_data(),
           block * kEncodeBlock, std::min(n, (block + 1) * kEncodeBlock));
  });
  return ffi::Error::Success();
}

ffi::Error encode_bwd(F32 tables, F32 coords, F32 v_features, F32Out v_tables, F32Out v_coords,
                      Ints resolutions, Floats scales, Ints offsets, float bound,
                      ffi::ThreadPool pool) {
  Levels levels;
  FG_TRY(check_encoding(resolutions, scales, offsets, bound, tables, coords, &levels));
  FG_TRY(check_cotangents(levels, tables, coords, v_features, *v_tables, *v_coords));
  const int64_t n = coords.dimensions()[0];
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

using xla::ffi::ThreadPool;

XLA_FFI_DEFINE_HANDLER_SYMBOL(fg3dgs_encode_fwd, fg::encode_fwd,
                              fg::encode_fwd_call().Ctx<ThreadPool>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(fg3dgs_encode_bwd, fg::encode_bwd,
                              fg::encode_bwd_call().Ctx<ThreadPool>());
