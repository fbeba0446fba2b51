// Projection over a range of Gaussians. Compiled once per instruction set (FG_ISA).
#include "cpu/kernels.h"

namespace fg {
namespace FG_ISA {

void project(const ProjectArgs& in, const ProjectOut& out, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const Splat s = fg::project(in.means + 3 * i, in.quats + 4 * i, in.scales + 3 * i,
                                in.opacities[i], in.view);
    out.means2d[2 * i] = s.u, out.means2d[2 * i + 1] = s.v;
    out.depths[i] = s.depth;
    out.conics[3 * i] = s.A, out.conics[3 * i + 1] = s.B, out.conics[3 * i + 2] = s.C;
    out.compensations[i] = s.rho;
    out.radii[2 * i] = s.rx, out.radii[2 * i + 1] = s.ry;
  }
}

void project_vjp(const ProjectArgs& in, const ProjectGrad& g, int64_t begin, int64_t end,
                 float* v_camera) {
  for (int k = 0; k < 12; ++k) v_camera[k] = 0.0f;
  for (int64_t i = begin; i < end; ++i) {
    GaussianGrad out = {};
    if (g.radii[2 * i] > 0) {
      const SplatGrad v = {g.v_means2d[2 * i],  g.v_means2d[2 * i + 1], g.v_depths[i],
                           g.v_conics[3 * i],   g.v_conics[3 * i + 1],  g.v_conics[3 * i + 2],
                           g.v_compensations[i]};
      out = fg::project_vjp(in.means + 3 * i, in.quats + 4 * i, in.scales + 3 * i, in.view, v);
    }
    for (int k = 0; k < 3; ++k) g.v_means[3 * i + k] = out.mean[k];
    for (int k = 0; k < 4; ++k) g.v_quats[4 * i + k] = out.quat[k];
    for (int k = 0; k < 3; ++k) g.v_scales[3 * i + k] = out.scale[k];
    for (int k = 0; k < 9; ++k) v_camera[k] += out.R[k];
    for (int k = 0; k < 3; ++k) v_camera[9 + k] += out.t[k];
  }
}

}  // namespace FG_ISA
}  // namespace fg
