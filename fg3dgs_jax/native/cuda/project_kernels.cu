// Projection and its gradient: one thread a Gaussian, all images in one launch.
#include "cuda/kernels.h"
#include "cuda/warp.cuh"

namespace fg {
namespace {

constexpr int kWarps = kProjectThreads / 32;
constexpr int kCameraSums = 12;  // gradients of R (9) and t (3)

__global__ void __launch_bounds__(kProjectThreads)
    project_kernel(int64_t n, ProjectIn in, ProjectOut out) {
  const int64_t b = blockIdx.y, i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const Splat<Scalar> s =
      project<Scalar>(in.means.at(b) + 3 * i, in.quats.at(b) + 4 * i, in.scales.at(b) + 3 * i,
                      in.opacities.at(b)[i], in.view(b));
  const int64_t item = b * n + i;
  out.means2d[2 * item] = s.u, out.means2d[2 * item + 1] = s.v;
  out.depths[item] = s.depth;
  out.conics[3 * item] = s.A, out.conics[3 * item + 1] = s.B, out.conics[3 * item + 2] = s.C;
  out.compensations[item] = s.rho;
  out.radii[2 * item] = static_cast<int32_t>(s.rx);
  out.radii[2 * item + 1] = static_cast<int32_t>(s.ry);
}

__global__ void __launch_bounds__(kProjectThreads)
    project_vjp_kernel(int64_t n, ProjectIn in, ProjectGrad g) {
  __shared__ float shares[kWarps][kCameraSums];
  const int64_t b = blockIdx.y, i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  GaussianGrad<Scalar> out = {};
  if (i < n && g.v.radii.at(b)[2 * i] > 0) {
    const float *m = g.v.v_means2d.at(b) + 2 * i, *q = g.v.v_conics.at(b) + 3 * i;
    const SplatGrad<Scalar> v = {m[0], m[1], g.v.v_depths.at(b)[i],       q[0],
                                 q[1], q[2], g.v.v_compensations.at(b)[i]};
    out = project_vjp<Scalar>(in.means.at(b) + 3 * i, in.quats.at(b) + 4 * i,
                              in.scales.at(b) + 3 * i, in.view(b), v);
  }
  if (i < n) {
    const int64_t item = b * n + i;
    for (int k = 0; k < 3; ++k) g.v_means[3 * item + k] = out.mean[k];
    for (int k = 0; k < 4; ++k) g.v_quats[4 * item + k] = out.quat[k];
    for (int k = 0; k < 3; ++k) g.v_scales[3 * item + k] = out.scale[k];
  }
  float sums[kCameraSums];
  for (int k = 0; k < 9; ++k) sums[k] = out.R[k];
  for (int k = 0; k < 3; ++k) sums[9 + k] = out.t[k];
  reduce_scatter<kCameraSums>(sums, lane);
  const int index = scatter_index(kCameraSums, lane, 0);
  if (index >= 0) shares[warp][index] = sums[0];
  __syncthreads();
  if (threadIdx.x < kCameraSums) {
    float sum = 0.0f;
    for (int w = 0; w < kWarps; ++w) sum += shares[w][threadIdx.x];
    g.partial[(b * gridDim.x + blockIdx.x) * kCameraSums + threadIdx.x] = sum;
  }
}

// One warp for each of the 16 entries of each pose.
__global__ void pose_kernel(int64_t blocks, const float* partial, float* v_pose) {
  const int64_t b = blockIdx.x / 16;
  const int row = blockIdx.x % 16 / 4, column = blockIdx.x % 4;
  const int k = column < 3 ? 3 * row + column : 9 + row;
  float sum = 0.0f;
  if (row < 3) {
    for (int64_t block = threadIdx.x; block < blocks; block += 32)
      sum += partial[(b * blocks + block) * kCameraSums + k];
  }
  sum = warp_sum(sum);
  if (threadIdx.x == 0) v_pose[blockIdx.x] = sum;
}

}  // namespace

cudaError_t project(cudaStream_t stream, const Sizes& s, const ProjectIn& in,
                    const ProjectOut& out) {
  if (s.items() == 0) return cudaSuccess;
  const dim3 grid(blocks_for(s.n, kProjectThreads), static_cast<unsigned>(s.batch));
  FG_LAUNCH(project_kernel, grid, kProjectThreads, stream, s.n, in, out);
  return cudaGetLastError();
}

cudaError_t project_vjp(cudaStream_t stream, const Sizes& s, const ProjectIn& in,
                        const ProjectGrad& g) {
  if (s.batch == 0) return cudaSuccess;
  const unsigned blocks = blocks_for(s.n, kProjectThreads);
  if (blocks > 0) {
    const dim3 grid(blocks, static_cast<unsigned>(s.batch));
    FG_LAUNCH(project_vjp_kernel, grid, kProjectThreads, stream, s.n, in, g);
  }
  const unsigned entries = static_cast<unsigned>(16 * s.batch);
  FG_LAUNCH(pose_kernel, entries, 32, stream, blocks, g.partial, g.v_pose);
  return cudaGetLastError();
}

}  // namespace fg
