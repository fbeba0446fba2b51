// The XLA FFI door of the optimizer on a GPU.
#include <string>
#include <vector>

#include "core/operands.h"
#include "cuda/adam_kernels.h"

namespace fg {
namespace {

// Operands: the table [leaves, 8] (AdamNumbers), then of all leaves the values, of all the
// gradients, then the means, then the squares. Results: values, means, squares.
ffi::Error adam_step(F32 table, ffi::RemainingArgs operands, ffi::RemainingRets results,
                     ffi::Span<const int32_t> rows, ffi::Span<const int32_t> firsts, float eps,
                     cudaStream_t stream) {
  const size_t count = rows.size();
  if (firsts.size() != count || operands.size() != 4 * count || results.size() != 3 * count ||
      table.element_count() * sizeof(float) != count * sizeof(AdamNumbers)) {
    return refuse("adam: table, operands and results are not of the same number of leaves");
  }
  std::vector<AdamLeaf> leaves(count);
  for (size_t i = 0; i < count; ++i) {
    const float* in[4];
    float* out[3];
    size_t numbers = 0;
    for (size_t k = 0; k < 4; ++k) {
      auto operand = operands.get<F32>(k * count + i);
      if (operand.has_error()) return operand.error();
      if (k == 0) numbers = operand->element_count();
      if (operand->element_count() != numbers) return refuse("adam: arrays of a leaf differ");
      in[k] = operand->typed_data();
    }
    for (size_t k = 0; k < 3; ++k) {
      auto result = results.get<F32>(k * count + i);
      if (result.has_error()) return result.error();
      if ((*result)->element_count() != numbers) return refuse("adam: arrays of a leaf differ");
      out[k] = (*result)->typed_data();
    }
    if (numbers > 0x7FFFFFFF - 4096 || rows[i] < 1) return refuse("adam: an array is too large");
    leaves[i] = {in[0],  in[1],   in[2],    in[3],
                 out[0], out[1],  out[2],   static_cast<int32_t>(numbers),
                 0,      rows[i], firsts[i]};
  }
  const cudaError_t error = adam(stream, leaves.data(), static_cast<int>(count),
                                 reinterpret_cast<const AdamNumbers*>(table.typed_data()), eps);
  if (error == cudaSuccess) return ffi::Error::Success();
  return ffi::Error::Internal(std::string("adam: CUDA: ") + cudaGetErrorString(error));
}

}  // namespace
}  // namespace fg

namespace ffi = xla::ffi;

XLA_FFI_DEFINE_HANDLER_SYMBOL(fg3dgs_adam, fg::adam_step,
                              ffi::Ffi::Bind()
                                  .Arg<fg::F32>()  // table
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<ffi::Span<const int32_t>>("rows")
                                  .Attr<ffi::Span<const int32_t>>("firsts")
                                  .Attr<float>("eps")
                                  .Ctx<ffi::PlatformStream<cudaStream_t>>(),
                              {ffi::Traits::kCmdBufferCompatible});
