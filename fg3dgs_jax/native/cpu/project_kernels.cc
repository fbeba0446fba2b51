// Projection over a range of Gaussians, a vector of them at a time. Compiled once per instruction
// set (FG_ISA).
#include "core/gaussian_math.h"
#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace fg {
namespace FG_ISA {

typedef Simd::F F;
constexpr int L = Simd::kLanes;

struct Inputs {
  F mean[3], quat[4], scale[3];
};

FG_HD_INLINE Inputs inputs_of(const ProjectArgs& in, int64_t i, int count) {
  Inputs g;
  Simd::gather_rows(in.means + 3 * i, 3, count, g.mean);
  Simd::gather_rows(in.quats + 4 * i, 4, count, g.quat);
  Simd::gather_rows(in.scales + 3 * i, 3, count, g.scale);
  return g;
}

void project(const ProjectArgs& in, const ProjectOut& out, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i += L) {
    const int count = end - i < L ? static_cast<int>(end - i) : L;
    const Inputs g = inputs_of(in, i, count);
    F opacity;
    Simd::gather_rows(in.opacities + i, 1, count, &opacity);
    const Splat<Simd> s = fg::project<Simd>(g.mean, g.quat, g.scale, opacity, in.view);
    const F means2d[2] = {s.u, s.v}, conics[3] = {s.A, s.B, s.C};
    Simd::scatter_rows(means2d, 2, count, out.means2d + 2 * i);
    Simd::scatter_rows(&s.depth, 1, count, out.depths + i);
    Simd::scatter_rows(conics, 3, count, out.conics + 3 * i);
    Simd::scatter_rows(&s.rho, 1, count, out.compensations + i);
    const Simd::I radii[2] = {Simd::truncate(s.rx), Simd::truncate(s.ry)};
    Simd::scatter_rows(radii, 2, count, out.radii + 2 * i);
  }
}

void project_vjp(const ProjectArgs& in, const ProjectGrad& g, int64_t begin, int64_t end,
                 float* v_camera) {
  F camera[12];
  for (int k = 0; k < 12; ++k) camera[k] = Simd::all(0.0f);
  for (int64_t i = begin; i < end; i += L) {
    const int count = end - i < L ? static_cast<int>(end - i) : L;
    const Inputs x = inputs_of(in, i, count);
    F v_means2d[2], v_conics[3], v_depth, v_rho;
    Simd::I radii[2];
    Simd::gather_rows(g.v_means2d + 2 * i, 2, count, v_means2d);
    Simd::gather_rows(g.v_conics + 3 * i, 3, count, v_conics);
    Simd::gather_rows(g.v_depths + i, 1, count, &v_depth);
    Simd::gather_rows(g.v_compensations + i, 1, count, &v_rho);
    Simd::gather_rows(g.radii + 2 * i, 2, count, radii);
    const SplatGrad<Simd> v = {v_means2d[0], v_means2d[1], v_depth, v_conics[0],
                               v_conics[1],  v_conics[2],  v_rho};
    GaussianGrad<Simd> out = fg::project_vjp<Simd>(x.mean, x.quat, x.scale, in.view, v);
    const Simd::M drawn =
        Simd::both(Simd::first_lanes(count), Simd::gt(Simd::to_float(radii[0]), Simd::all(0.0f)));
    const auto mask = [&](F* fields, int n) {
      for (int k = 0; k < n; ++k) fields[k] = Simd::select(drawn, fields[k], Simd::all(0.0f));
    };
    mask(out.mean, 3), mask(out.quat, 4), mask(out.scale, 3), mask(out.R, 9), mask(out.t, 3);
    Simd::scatter_rows(out.mean, 3, count, g.v_means + 3 * i);
    Simd::scatter_rows(out.quat, 4, count, g.v_quats + 4 * i);
    Simd::scatter_rows(out.scale, 3, count, g.v_scales + 3 * i);
    for (int k = 0; k < 9; ++k) camera[k] += out.R[k];
    for (int k = 0; k < 3; ++k) camera[9 + k] += out.t[k];
  }
  for (int k = 0; k < 12; ++k) {
    v_camera[k] = 0.0f;
    for (int l = 0; l < L; ++l) v_camera[k] += camera[k][l];
  }
}

}  // namespace FG_ISA
}  // namespace fg
