// Runs the rasterizer's CUDA functions without JAX: against files of known results, and by the
// clock.
//
//   nvcc -O3 --fmad=false -std=c++17 -arch=sm_90 -I fg3dgs_jax/native
//     tests/host_cuda/driver.cu fg3dgs_jax/native/cuda/*.cu -o driver       (one line)
//   driver FILE...                               # made by `python -m tests.host_cuda.references`
//   driver --time GAUSSIANS SIDE CHANNELS BATCH  # SIDE px; footprints of 0.5 to 1 px
//   driver --sort KEYS                           # against the standard library's
//
// Every line begins with what was run and ends with "ok", "FAILED" or a time. The exit code is 1 if
// anything failed. No buffer is a byte too long and a guard lies behind each, so compute-sanitizer
// and the driver itself see a write past an end.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "cuda/kernels.h"
#include "cuda/radix_sort.cuh"
#include "driver_program.h"

namespace fg {
namespace {

constexpr int64_t kMagic = 0x3147524453334746;  // of a file, which begins with seven such integers
constexpr double kPictureLimit = 1e-5, kGradientLimit = 1e-4;  // |difference|, relative L2
#ifdef __CUDACC__
constexpr int kWarmUp = 5, kRepeats = 200;
#else  // on a host times mean nothing
constexpr int kWarmUp = 0, kRepeats = 1;
#endif

// Files: kMagic, B, N, width, height, D, pairs of the neediest image as int64, then float32: the
// inputs, what is expected of the outputs, and the pairs that each image needs.

template <typename T>
void read(FILE* file, const char* path, T* to, size_t count) {
  if (fread(to, sizeof(T), count, file) == count) return;
  printf("%s: ends early; write it again with python -m tests.host_cuda.references FAILED\n", path);
  exit(2);
}

Scene read_scene(const char* path) {
  FILE* file = fopen(path, "rb");
  if (!file) printf("%s: cannot be opened FAILED\n", path), exit(2);
  int64_t head[7];
  read(file, path, head, 7);
  if (head[0] != kMagic) printf("%s: not a file of references FAILED\n", path), exit(2);
  Scene scene;
  scene.name = path;
  scene.name = scene.name.substr(scene.name.rfind('/') + 1);
  const Sizes s = scene.sizes = {head[1], head[2], head[3], head[4], head[5], head[6]};
  const auto read_arrays = [&](const std::vector<Array>& arrays, Arrays* to) {
    for (const Array& array : arrays) {
      to->emplace_back(s.batch * array.size);
      read(file, path, to->back().data(), to->back().size());
    }
  };
  read_arrays(inputs_of(s), &scene.inputs);
  read_arrays(outputs_of(s), &scene.expected.arrays);
  std::vector<float> pairs(s.batch);
  read(file, path, pairs.data(), pairs.size());
  scene.expected.needed.assign(pairs.begin(), pairs.end());
  scene.expected.overflow.assign(s.batch, 0);
  fclose(file);
  return scene;
}

bool report(const Scene& scene, const char* what, bool ok, const char* figures = "") {
  printf("%-24s %-12s %s%s\n", scene.name.c_str(), what, figures, ok ? "ok" : "FAILED");
  return ok;
}

bool agrees(const Scene& scene, const Results& found) {
  const std::vector<Array> outputs = outputs_of(scene.sizes);
  bool all = true;
  for (int k = 0; k < kOutputs; ++k) {
    double most = 0.0, distance = 0.0, size = 0.0;
    for (size_t i = 0; i < found.arrays[k].size(); ++i) {
      const double expected = scene.expected.arrays[k][i], d = found.arrays[k][i] - expected;
      if (!(fabs(d) <= most)) most = fabs(d);  // a NaN stays
      distance += d * d, size += expected * expected;
    }
    const double relative = sqrt(distance) / (sqrt(size) + 1e-12);
    const bool picture = k == kImage || k == kAlpha, tiny = sqrt(size) <= 1e-9;
    const bool ok = picture || tiny ? most <= kPictureLimit : relative <= kGradientLimit;
    char figures[80];
    snprintf(figures, sizeof(figures), "max %.1e relative %.1e ", most, relative);
    all = report(scene, outputs[k].name, ok, figures) && all;
  }
  const bool same =
      found.needed == scene.expected.needed && found.overflow == scene.expected.overflow;
  return report(scene, "pairs", same) && all;
}

Results one_by_one(const Scene& scene) {
  Results whole;
  whole.arrays.resize(kOutputs);
  for (int64_t b = 0; b < scene.sizes.batch; ++b) {
    Sizes one = scene.sizes;
    one.batch = 1;
    const Results part = Program(scene, one, b).run();
    for (int k = 0; k < kOutputs; ++k) {
      whole.arrays[k].insert(whole.arrays[k].end(), part.arrays[k].begin(), part.arrays[k].end());
    }
    whole.needed.insert(whole.needed.end(), part.needed.begin(), part.needed.end());
    whole.overflow.insert(whole.overflow.end(), part.overflow.begin(), part.overflow.end());
  }
  return whole;
}

bool check(const Scene& scene) {
  const Program program(scene, scene.sizes, 0);
  const Results first = program.run();
  bool ok = agrees(scene, first);
  ok = report(scene, "twice", program.run() == first) && ok;
  ok = report(scene, "batch = loop", one_by_one(scene) == first) && ok;
  Sizes ample = scene.sizes;
  ample.capacity = 2 * ample.capacity + 5000;
  const Program roomy(scene, ample, 0);
  ok = report(scene, "longer list", roomy.run() == first) && ok;
  return report(scene, "guards", program.guarded() && roomy.guarded()) && ok;
}

// Gaussians of 0.5 to 1 px before a camera, as scripts/bench_rasterizer.py has them.
Scene random_scene(int64_t n, int64_t side, int64_t channels, int64_t batch) {
  Scene scene;
  scene.sizes = {batch, n, side, side, channels, 4 * n + 1024};  // about twice the need
  std::mt19937 random(1);
  const auto uniform = [&](float a, float b) { return a + (b - a) * (random() / 4294967296.0f); };
  const std::vector<Array> arrays = inputs_of(scene.sizes);
  for (int k = 0; k < kInputs; ++k) {
    scene.inputs.emplace_back(batch * arrays[k].size);
    const float bound = k == kVImage || k == kVAlpha ? 1e-3f : 1.0f;
    for (float& x : scene.inputs[k])
      x = uniform(k == kQuats || bound < 1.0f ? -bound : 0.1f, bound);
  }
  const float focal = 1.2f * side, pose[16] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};
  const float intrinsics[4] = {focal, focal, 0.5f * side, 0.5f * side};
  for (int64_t b = 0; b < batch; ++b) {
    memcpy(&scene.inputs[kPose][16 * b], pose, sizeof(pose));
    memcpy(&scene.inputs[kIntrinsics][4 * b], intrinsics, sizeof(intrinsics));
  }
  for (int64_t i = 0; i < batch * n; ++i) {
    float* mean = &scene.inputs[kMeans][3 * i];
    mean[2] = uniform(0.9f, 1.1f);
    for (int k = 0; k < 2; ++k) mean[k] = uniform(-0.5f, 0.5f) * side * mean[2] / focal;
    for (int k = 0; k < 3; ++k) {
      scene.inputs[kScales][3 * i + k] = uniform(0.5f, 1.0f) * mean[2] / focal;
    }
  }
  return scene;
}

class Clock {  // of what is queued on a stream
 public:
  explicit Clock(cudaStream_t stream) : stream_(stream) {
    FG_CUDA(cudaEventCreate(&begin_));
    FG_CUDA(cudaEventCreate(&end_));
  }
  Clock(const Clock&) = delete;
  ~Clock() { (void)cudaEventDestroy(begin_), (void)cudaEventDestroy(end_); }

  double microseconds(const std::function<void()>& work) const {  // of one call, mean
    for (int k = 0; k < kWarmUp; ++k) work();
    FG_CUDA(cudaEventRecord(begin_, stream_));
    for (int k = 0; k < kRepeats; ++k) work();
    FG_CUDA(cudaEventRecord(end_, stream_));
    FG_CUDA(cudaStreamSynchronize(stream_));
    float ms = 0.0f;
    FG_CUDA(cudaEventElapsedTime(&ms, begin_, end_));
    return 1e3 * ms / kRepeats;
  }

 private:
  cudaStream_t stream_;
  cudaEvent_t begin_, end_;
};

bool time_parts(const Scene& scene) {
  const Program program(scene, scene.sizes, 0);
  const Results results = program.run();
  int64_t needed = 0;
  for (int32_t need : results.needed) needed += need;
  printf("%ld Gaussians, %ld px, %ld channels, batch %ld: %ld pairs, list for %ld\n",
         long(scene.sizes.n), long(scene.sizes.width), long(scene.sizes.channels),
         long(scene.sizes.batch), long(needed), long(scene.sizes.pool()));
  const Clock clock(program.stream);
  const std::pair<const char*, std::function<void()>> parts[] = {
      {"project", [&] { program.project_part(); }},
      {"bin", [&] { program.bin_part(); }},
      {"blend", [&] { program.blend_part(); }},
      {"blend_vjp", [&] { program.blend_vjp_part(); }},
      {"project_vjp", [&] { program.project_vjp_part(); }},
      {"forward", [&] { program.forward(); }},
      {"forward + backward", [&] { program.all(); }}};
  for (const auto& [name, work] : parts) {
    const double direct = clock.microseconds(work);
    printf("%-20s %9.1f us by stream", name, direct);
#ifdef __CUDACC__  // a host has no graphs
    cudaGraph_t graph;
    cudaGraphExec_t ready;
    size_t nodes = 0;
    FG_CUDA(cudaStreamBeginCapture(program.stream, cudaStreamCaptureModeThreadLocal));
    work();
    FG_CUDA(cudaStreamEndCapture(program.stream, &graph));
    FG_CUDA(cudaGraphGetNodes(graph, nullptr, &nodes));
    FG_CUDA(cudaGraphInstantiate(&ready, graph, 0));
    const double replayed =
        clock.microseconds([&] { FG_CUDA(cudaGraphLaunch(ready, program.stream)); });
    printf(" %9.1f us by graph (%zu nodes), a frame %.1f us", replayed, nodes,
           replayed / scene.sizes.batch);
    FG_CUDA(cudaGraphExecDestroy(ready));
    FG_CUDA(cudaGraphDestroy(graph));
#endif
    printf("\n");
  }
  return report(scene, "after graphs", program.results() == results);
}

__global__ void __launch_bounds__(kSortThreads) count_kernel(Sort sort) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * kSortThreads + threadIdx.x;
  if (k < keys_there(sort)) count_key(sort, k, sort.keys[0][k]);
}

// Of the first `there` of n keys, in one launch a pass and in two.
bool check_sort(int64_t n, int64_t there, int bits) {
  std::mt19937 random(static_cast<unsigned>(bits));
  std::vector<uint32_t> keys(n), expected(there), found(n);
  for (uint32_t& key : keys) key = bits < 32 ? random() >> (32 - bits) : random();
  std::iota(expected.begin(), expected.end(), 0u);
  std::stable_sort(expected.begin(), expected.end(),
                   [&](uint32_t a, uint32_t b) { return keys[a] < keys[b]; });
  Buffer first(4 * n), second(4 * n), values(4 * n), more(4 * n), totals(4 * kSortDigits);
  Buffer counts(static_cast<size_t>(sort_count_bytes(n))), many(4);
  const auto words = [](const Buffer& buffer) { return static_cast<uint32_t*>(buffer.memory()); };
  const Sort sort = {{words(first), words(second)},
                     {words(values), words(more)},
                     words(counts),
                     words(totals),
                     words(many),
                     n,
                     bits,
                     true};
  const uint32_t there_ = static_cast<uint32_t>(there);
  many.fill(&there_);
  bool ok = true;
  for (int64_t fused_rows : {kFusedRows, int64_t{0}}) {
    first.fill(keys.data());
    FG_CUDA(cudaMemset(counts.memory(), 0, counts.bytes()));
    FG_LAUNCH(count_kernel, blocks_for(n, kSortThreads), kSortThreads, nullptr, sort);
    sort_pairs(nullptr, sort, JustSort{}, fused_rows);
    FG_CUDA(cudaStreamSynchronize(nullptr));
    (sort.passes() % 2 ? more : values).read(found.data());
    ok = ok && std::equal(expected.begin(), expected.end(), found.begin());
  }
  printf("sort %ld of %ld keys of %d bits %s\n", long(there), long(n), bits, ok ? "ok" : "FAILED");
  return ok && first.guarded() && second.guarded() && values.guarded() && more.guarded() &&
         counts.guarded();
}

}  // namespace
}  // namespace fg

int main(int argc, char** argv) {
  if (argc == 6 && !strcmp(argv[1], "--time")) {
    int64_t sizes[4];
    for (int k = 0; k < 4; ++k) sizes[k] = atoll(argv[2 + k]);
    return !fg::time_parts(fg::random_scene(sizes[0], sizes[1], sizes[2], sizes[3]));
  }
  if (argc == 3 && !strcmp(argv[1], "--sort")) {
    const int64_t n = atoll(argv[2]);
    bool ok = true;
    for (int bits : {1, 5, 10, 13, 32}) {
      ok = fg::check_sort(n, n, bits) && fg::check_sort(n, n / 3, bits) && ok;
    }
    return !ok;
  }
  if (argc < 2 || argv[1][0] == '-') {
    printf(
        "usage: driver FILE... | driver --time GAUSSIANS SIDE CHANNELS BATCH | driver --sort "
        "KEYS\n");
    return 2;
  }
  bool ok = true;
  for (int k = 1; k < argc; ++k) ok = fg::check(fg::read_scene(argv[k])) && ok;
  printf("%d files %s\n", argc - 1, ok ? "ok" : "FAILED");
  return !ok;
}
