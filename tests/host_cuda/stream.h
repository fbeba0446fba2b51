// Included before the handlers: on the host their stream is none at all.
#pragma once

#include <cuda_runtime_api.h>

#include <optional>

#include "xla/ffi/api/ffi.h"

namespace xla::ffi {
template <>
struct CtxDecoding<PlatformStream<cudaStream_t>> {
  using Type = cudaStream_t;
  static std::optional<Type> Decode(const XLA_FFI_Api*, XLA_FFI_ExecutionContext*,
                                    DiagnosticEngine&) {
    return nullptr;
  }
};
}  // namespace xla::ffi
