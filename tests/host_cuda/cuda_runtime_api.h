// The few names of CUDA's runtime that the handlers use, for a build without CUDA.
#pragma once

#include <stddef.h>

typedef struct HostStream* cudaStream_t;
enum cudaError_t { cudaSuccess = 0, cudaErrorMemoryAllocation = 2 };
inline const char* cudaGetErrorString(cudaError_t) { return "an error of the host's stand-in"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
