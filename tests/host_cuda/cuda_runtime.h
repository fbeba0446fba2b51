// Runs the kernels on the host: a block's threads are fibers that meet at barriers and warp
// exchanges, blocks run one after the other. FG_HOST_CUDA_ORDER shuffles the order in which fibers
// go on, so a missing barrier changes results; a barrier that not all threads reach aborts.
#pragma once

#include <cuda_runtime_api.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <functional>
#include <random>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static thread_local
#define __grid_constant__
#define __launch_bounds__(...)
#define FG_LAUNCH(kernel, grid, block, stream, ...) \
  ((void)(stream), host_cuda::launch(grid, block, [&] { kernel(__VA_ARGS__); }))

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace host_cuda {

struct Meeting {  // of a warp or a block; two sets of values, as some may still read the last one's
  int size = 0, arrived = 0;
  uint64_t round = 0;
  uint64_t values[2][1024];
};

struct Fiber {
  ucontext_t context;
  std::vector<char> stack;
  bool done;
  const Meeting* waits;  // until this meeting's round is over; none: goes on
  uint64_t round;

  bool ready() const { return !done && (waits == nullptr || waits->round != round); }
};

struct Machine {
  ucontext_t scheduler;
  std::vector<Fiber> fibers;
  std::vector<Meeting> warps;
  Meeting block;
  std::function<void()> body;
  int current = 0;
  bool progress = false;
};

inline thread_local Machine machine;
inline thread_local dim3 thread_index, block_index, block_size, grid_size;

inline void enter() {
  machine.body();
  machine.fibers[machine.current].done = true;
  machine.progress = true;
  swapcontext(&machine.fibers[machine.current].context, &machine.scheduler);
}

inline const uint64_t* meet(Meeting& m, int place, uint64_t value) {
  const uint64_t round = m.round;
  m.values[round & 1][place] = value;
  if (++m.arrived == m.size) {
    m.arrived = 0;
    ++m.round;
    machine.progress = true;
  }
  if (m.round == round) {
    Fiber& me = machine.fibers[machine.current];
    me.waits = &m, me.round = round;
    swapcontext(&me.context, &machine.scheduler);
    me.waits = nullptr;
  }
  return m.values[round & 1];
}

inline void run_block(int threads) {
  machine.fibers.resize(threads), machine.warps.assign(threads / 32, Meeting());
  for (Meeting& w : machine.warps) w.size = 32;
  machine.block = Meeting();
  machine.block.size = threads;
  std::vector<int> order(threads);
  for (int t = 0; t < threads; ++t) {
    Fiber& f = machine.fibers[t];
    f.stack.resize(1 << 16), f.done = false, f.waits = nullptr, order[t] = t;
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.data(), f.context.uc_stack.ss_size = f.stack.size();
    makecontext(&f.context, enter, 0);
  }
  const char* seed = getenv("FG_HOST_CUDA_ORDER");
  std::mt19937 random(seed ? atoi(seed) : 0);
  for (int left = threads; left > 0;) {
    if (seed) std::shuffle(order.begin(), order.end(), random);
    machine.progress = false;
    for (int t : order) {
      if (!machine.fibers[t].ready()) continue;
      machine.current = t, thread_index = dim3(t);
      swapcontext(&machine.scheduler, &machine.fibers[t].context);
      if (machine.fibers[t].done) --left;
    }
    if (!machine.progress) {
      fprintf(stderr, "a barrier waits for threads that never come\n");
      abort();
    }
  }
}

template <typename Body>
void launch(dim3 grid, dim3 block, Body&& body) {
  machine.body = body;
  block_size = block, grid_size = grid;
  for (unsigned y = 0; y < grid.y; ++y) {
    for (unsigned x = 0; x < grid.x; ++x) {
      block_index = dim3(x, y);
      run_block(static_cast<int>(block.x));
    }
  }
}

template <typename T>
uint64_t pack(T value) {
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(T));
  return bits;
}

template <typename T>
T unpack(uint64_t bits) {
  T value;
  memcpy(&value, &bits, sizeof(T));
  return value;
}

inline const uint64_t* meet_warp(uint64_t value) {
  return meet(machine.warps[thread_index.x / 32], thread_index.x % 32, value);
}

}  // namespace host_cuda

#define threadIdx host_cuda::thread_index
#define blockIdx host_cuda::block_index
#define blockDim host_cuda::block_size
#define gridDim host_cuda::grid_size

inline int min(int a, int b) { return a < b ? a : b; }
inline int __ffs(unsigned x) { return __builtin_ffs(static_cast<int>(x)); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }

// Fibers of a block never run at the same time.
template <typename T>
T atomicAdd(T* to, T value) {
  const T before = *to;
  return *to += value, before;
}
inline int atomicMin(int* to, int value) {
  const int before = *to;
  return *to = min(before, value), before;
}

inline void __syncthreads() { host_cuda::meet(host_cuda::machine.block, threadIdx.x, 0); }

inline int __syncthreads_and(int value) {
  const uint64_t* all = host_cuda::meet(host_cuda::machine.block, threadIdx.x, value != 0);
  return std::all_of(all, all + blockDim.x, [](uint64_t v) { return v != 0; });
}

inline unsigned __ballot_sync(unsigned, int value) {
  const uint64_t* all = host_cuda::meet_warp(value != 0);
  unsigned mask = 0;
  for (int k = 0; k < 32; ++k) mask |= static_cast<unsigned>(all[k]) << k;
  return mask;
}

inline int __any_sync(unsigned mask, int value) { return __ballot_sync(mask, value) != 0; }
inline int __all_sync(unsigned mask, int value) { return __ballot_sync(mask, value) == ~0u; }

template <typename T>
T __shfl_sync(unsigned, T value, int source, int width = 32) {
  const int lane = threadIdx.x % 32;
  const uint64_t* all = host_cuda::meet_warp(host_cuda::pack(value));
  return host_cuda::unpack<T>(all[lane / width * width + source % width]);
}

template <typename T>
T __shfl_up_sync(unsigned, T value, int offset) {
  const int lane = threadIdx.x % 32;
  const uint64_t* all = host_cuda::meet_warp(host_cuda::pack(value));
  return host_cuda::unpack<T>(all[lane < offset ? lane : lane - offset]);
}

inline void __syncwarp() { host_cuda::meet_warp(0); }

template <typename T>
T __shfl_xor_sync(unsigned, T value, int bits) {
  const int lane = threadIdx.x % 32;
  return host_cuda::unpack<T>(host_cuda::meet_warp(host_cuda::pack(value))[lane ^ bits]);
}
