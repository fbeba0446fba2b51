// A parallel loop on XLA's thread pool in which the caller takes part.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace fg {

// How many threads work on one call: FG3DGS_NUM_THREADS if set (tests force it), else what the pool
// has.
inline int worker_count(const xla::ffi::ThreadPool& pool) {
  if (const char* forced = std::getenv("FG3DGS_NUM_THREADS")) {
    const int n = std::atoi(forced);
    if (n > 0) return std::min(n, 64);
  }
  return static_cast<int>(std::max<int64_t>(1, pool.num_threads()));
}

// Calls body(i) once for every i in [0, n), in any order, on up to worker_count threads; returns
// when all are done.
//
// The handler itself may run on a pool thread, and the pool may have one thread, so nothing here
// waits for a helper to be scheduled: the caller claims items like everyone else and then waits
// only for items already claimed. A helper that starts after that finds nothing to claim and
// touches only `shared`, which it owns a share of.
template <typename Body>
void parallel_for(xla::ffi::ThreadPool& pool, int64_t n, const Body& body) {
  if (n <= 0) return;
  const int workers = static_cast<int>(std::min<int64_t>(worker_count(pool), n));
  if (workers == 1) {
    for (int64_t i = 0; i < n; ++i) body(i);
    return;
  }
  struct Shared {
    std::atomic<int64_t> next{0};
    std::atomic<int64_t> done{0};
  };
  auto shared = std::make_shared<Shared>();
  const Body* work = &body;
  auto run = [shared, work, n] {
    for (int64_t i; (i = shared->next.fetch_add(1, std::memory_order_relaxed)) < n;) {
      (*work)(i);
      shared->done.fetch_add(1, std::memory_order_release);
    }
  };
  std::vector<std::thread> extra;  // only where a test forces more workers than the pool has
  const int64_t pooled = std::max<int64_t>(1, pool.num_threads());
  for (int k = 1; k < workers; ++k) {
    if (k < pooled) {
      pool.Schedule([run] { run(); });  // a fresh closure: Schedule keeps what it is given
    } else {
      extra.emplace_back(run);
    }
  }
  run();
  while (shared->done.load(std::memory_order_acquire) < n) std::this_thread::yield();
  for (std::thread& t : extra) t.join();
}

}  // namespace fg
