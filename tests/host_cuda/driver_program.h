// What the driver runs: a scene, and all buffers of one shape of call with its parts.
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <memory>
#include <string>
#include <vector>

#include "cuda/kernels.h"

namespace fg {

constexpr size_t kGuard = 256;                                // bytes behind each buffer
constexpr float kEps2d = 0.3f, kNear = 0.01f, kFar = 100.0f;  // as rasterizer/reference.py

#define FG_CUDA(call)                                                       \
  do {                                                                      \
    const cudaError_t error = (call);                                       \
    if (error != cudaSuccess) {                                             \
      printf("%s: %s FAILED\n", #call, cudaGetErrorString(error)), exit(2); \
    }                                                                       \
  } while (0)

// Device memory that begins as NaNs.
class Buffer {
 public:
  explicit Buffer(size_t bytes) : bytes_(bytes) {
    FG_CUDA(cudaMalloc(&memory_, bytes + kGuard));
    poison();
    FG_CUDA(cudaMemset(bytes_at(bytes), 0xA5, kGuard));
  }
  Buffer(const Buffer&) = delete;
  ~Buffer() { (void)cudaFree(memory_); }

  void poison() { FG_CUDA(cudaMemset(memory_, 0xFF, bytes_)); }
  void fill(const void* from) {
    FG_CUDA(cudaMemcpy(memory_, from, bytes_, cudaMemcpyHostToDevice));
  }
  void read(void* to) const { FG_CUDA(cudaMemcpy(to, memory_, bytes_, cudaMemcpyDeviceToHost)); }
  bool guarded() const {
    unsigned char guard[kGuard];
    FG_CUDA(cudaMemcpy(guard, bytes_at(bytes_), kGuard, cudaMemcpyDeviceToHost));
    for (unsigned char byte : guard) {
      if (byte != 0xA5) return false;
    }
    return true;
  }
  float* floats() const { return static_cast<float*>(memory_); }
  int32_t* ints() const { return static_cast<int32_t*>(memory_); }
  void* memory() const { return memory_; }
  size_t bytes() const { return bytes_; }

 private:
  void* bytes_at(size_t offset) const { return static_cast<char*>(memory_) + offset; }
  void* memory_ = nullptr;
  size_t bytes_;
};

// One array of a scene: how many numbers an image has of it.
struct Array {
  const char* name;
  int64_t size;
};

enum Input {
  kMeans,
  kQuats,
  kScales,
  kOpacities,
  kColors,
  kBackground,
  kPose,
  kIntrinsics,
  kVImage,
  kVAlpha,
  kInputs
};
inline std::vector<Array> inputs_of(const Sizes& s) {
  const int64_t pixels = s.width * s.height, n = s.n, d = s.channels;
  return {{"means", 3 * n},        {"quats", 4 * n},   {"scales", 3 * n}, {"opacities", n},
          {"colors", d * n},       {"background", d},  {"pose", 16},      {"intrinsics", 4},
          {"v_image", d * pixels}, {"v_alpha", pixels}};
}

enum Output {
  kImage,
  kAlpha,
  kGradMeans,
  kGradQuats,
  kGradScales,
  kGradColors,
  kGradOpacities,
  kGradBackground,
  kGradPose,
  kOutputs
};
inline std::vector<Array> outputs_of(const Sizes& s) {
  const int64_t pixels = s.width * s.height, n = s.n, d = s.channels;
  return {{"image", d * pixels}, {"alpha", pixels},   {"v_means", 3 * n},
          {"v_quats", 4 * n},    {"v_scales", 3 * n}, {"v_colors", d * n},
          {"v_opacities", n},    {"v_background", d}, {"v_pose", 16}};
}

typedef std::vector<std::vector<float>> Arrays;

struct Results {
  Arrays arrays;  // by Output
  std::vector<int32_t> needed, overflow;

  bool operator==(const Results& other) const {  // bit for bit
    bool equal = needed == other.needed && overflow == other.overflow;
    for (size_t k = 0; k < arrays.size(); ++k) {
      const size_t bytes = arrays[k].size() * sizeof(float);
      equal = equal && arrays[k].size() == other.arrays[k].size() &&
              (bytes == 0 || !memcmp(arrays[k].data(), other.arrays[k].data(), bytes));
    }
    return equal;
  }
};

struct Scene {
  std::string name = "random";
  Sizes sizes;    // with as many pairs an image as the neediest image needs
  Arrays inputs;  // by Input
  Results expected;
};

// All buffers of one shape of call, and its parts.
class Program {
 public:
  Program(const Scene& scene, const Sizes& sizes, int64_t first_image) : s_(sizes) {
    const std::vector<Array> in = inputs_of(s_), out = outputs_of(s_);
    for (int k = 0; k < kInputs; ++k) {
      inputs_.push_back(take(4 * s_.batch * in[k].size));
      inputs_[k]->fill(scene.inputs[k].data() + first_image * in[k].size);
    }
    zeros_ = take(4 * s_.items());  // the last that no call writes
    FG_CUDA(cudaMemset(zeros_->memory(), 0, zeros_->bytes()));
    for (int k = 0; k < kOutputs; ++k) outputs_.push_back(take(4 * s_.batch * out[k].size));
    means2d_ = take(8 * s_.items()), depths_ = take(4 * s_.items());
    conics_ = take(12 * s_.items()), rho_ = take(4 * s_.items()), radii_ = take(8 * s_.items());
    v_means2d_ = take(8 * s_.items()), v_conics_ = take(12 * s_.items());
    needed_ = take(4 * s_.batch), overflow_ = take(4 * s_.batch);
    state_ = take(StateLayout(s_).bytes), bin_ = take(BinLayout(s_).bytes);
    blend_grad_ = take(BlendGradLayout(s_).bytes);
    project_grad_ = take(ProjectGradLayout(s_.batch, s_.n).bytes);
    FG_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  }

  void project_part() const {
    FG_CUDA(project(stream, s_, gaussians(),
                    {means2d_->floats(), depths_->floats(), conics_->floats(), rho_->floats(),
                     radii_->ints()}));
  }
  void bin_part() const {
    const int64_t n = s_.n;
    const Splats splats = {batched<float>(*means2d_, 2 * n),
                           batched<float>(*depths_, n),
                           batched<float>(*conics_, 3 * n),
                           input(kColors),
                           input(kOpacities),
                           batched<int32_t>(*radii_, 2 * n),
                           n,
                           s_.channels};
    FG_CUDA(bin(stream, s_, splats, work_at(bin_->memory(), BinLayout(s_)), state(),
                {needed_->ints(), overflow_->ints()}));
  }
  void blend_part() const {
    FG_CUDA(blend(stream, s_, state(), input(kColors), input(kBackground), output(kImage),
                  output(kAlpha)));
  }
  void blend_vjp_part() const {
    const BlendGradLayout at(s_);
    const int64_t pixels = s_.width * s_.height;
    const PictureGrad picture = {batched<float>(*outputs_[kImage], s_.channels * pixels),
                                 batched<float>(*outputs_[kAlpha], pixels),
                                 input(kVImage),
                                 input(kVAlpha),
                                 s_.height,
                                 s_.width};
    FG_CUDA(blend_vjp(stream, s_, state(), input(kColors),
                      {picture, area<float>(blend_grad_->memory(), at.slot_sums),
                       area<float>(blend_grad_->memory(), at.tile_sums)},
                      {v_means2d_->floats(), v_conics_->floats(), output(kGradColors),
                       output(kGradOpacities), output(kGradBackground)}));
  }
  void project_vjp_part() const {
    const int64_t n = s_.n;
    const ProjectCotangents v = {batched<int32_t>(*radii_, 2 * n),
                                 batched<float>(*v_means2d_, 2 * n), batched<float>(*zeros_, n),
                                 batched<float>(*v_conics_, 3 * n), batched<float>(*zeros_, n)};
    FG_CUDA(project_vjp(stream, s_, gaussians(),
                        {v, output(kGradMeans), output(kGradQuats), output(kGradScales),
                         output(kGradPose), project_grad_->floats()}));
  }
  void forward() const { project_part(), bin_part(), blend_part(); }
  void all() const { forward(), blend_vjp_part(), project_vjp_part(); }

  Results run() const {
    for (size_t k = kInputs + 1; k < all_.size(); ++k) all_[k]->poison();
    all();
    return results();
  }
  Results results() const {
    FG_CUDA(cudaStreamSynchronize(stream));
    Results results;
    for (const Buffer* output : outputs_) {
      results.arrays.emplace_back(output->bytes() / sizeof(float));
      output->read(results.arrays.back().data());
    }
    results.needed.resize(s_.batch), results.overflow.resize(s_.batch);
    needed_->read(results.needed.data()), overflow_->read(results.overflow.data());
    return results;
  }
  bool guarded() const {
    bool kept = true;
    for (const auto& buffer : all_) kept = kept && buffer->guarded();
    return kept;
  }

  cudaStream_t stream = nullptr;

 private:
  Buffer* take(int64_t bytes) {
    all_.push_back(std::make_unique<Buffer>(static_cast<size_t>(bytes)));
    return all_.back().get();
  }
  template <typename T>
  Batched<T> batched(const Buffer& buffer, int64_t size) const {
    Batched<T> out;
    out.data = static_cast<const T*>(buffer.memory()), out.size = size;
    make_leading(&s_.batch, &s_.batch, 1, &out.leading);
    return out;
  }
  Batched<float> input(int k) const { return batched<float>(*inputs_[k], inputs_of(s_)[k].size); }
  float* output(int k) const { return outputs_[k]->floats(); }
  State state() const { return state_at(state_->memory(), StateLayout(s_)); }
  ProjectIn gaussians() const {
    const ProjectOptions options = {s_.width, s_.height, kEps2d, kNear, kFar, false};
    return {input(kMeans),      input(kQuats),     input(kScales), input(kPose),
            input(kIntrinsics), input(kOpacities), options,        s_.n};
  }

  Sizes s_;
  std::vector<std::unique_ptr<Buffer>> all_;
  std::vector<Buffer*> inputs_, outputs_;
  Buffer *means2d_, *depths_, *conics_, *rho_, *radii_, *v_means2d_, *v_conics_, *zeros_, *needed_,
      *overflow_, *state_, *bin_, *blend_grad_, *project_grad_;
};

}  // namespace fg
