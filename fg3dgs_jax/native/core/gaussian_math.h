// The maths of one Gaussian and one camera: forward and vjp side by side, for host and device. Only
// loops live elsewhere.
//
// Written over a type V of numbers: Scalar of core/scalar.h, or a vector of Gaussians (cpu/simd.h).
// So nothing branches on them: what may not be drawn is computed all the same, and masked.
#pragma once

#include "core/constants.h"
#include "core/scalar.h"

namespace fg {

struct View {
  float R[9];            // world -> camera rotation, row major
  float t[3];            // m
  float fx, fy, cx, cy;  // px
  float width, height;   // px
  float eps2d;           // px^2
  float near, far;       // m
  bool antialiased;
};

template <class V>
struct Splat {                // a projected Gaussian; all 0 if culled
  typename V::F u, v, depth;  // px, px, m
  typename V::F A, B, C;      // inverse of the 2D covariance
  typename V::F rho;          // antialiasing factor (1 where off)
  typename V::F rx, ry;       // half size of the box where alpha >= 1/255, whole px
};

template <class V>
struct SplatGrad {
  typename V::F u, v, depth, A, B, C, rho;
};

template <class V>
struct GaussianGrad {
  typename V::F mean[3], quat[4], scale[3];
  typename V::F R[9], t[3];  // this Gaussian's share of the camera's gradient
};

// Everything the forward makes on the way to a splat; the vjp starts by making it again.
template <class V>
struct Ewa {
  typename V::F q[4], inv_norm;  // unit wxyz, 1 / |quat|
  typename V::F Q[9];            // rotation of q
  typename V::F x, y, z;         // camera space, m
  typename V::F lx, ly;          // clamped x / z, y / z
  typename V::M free_x, free_y;  // not clamped
  typename V::F T[6];            // J W
  typename V::F M[6];            // J W Q S, so the 2D covariance is M M^T
  typename V::F a, b, c;         // with the low-pass
  typename V::F det0, det;       // without and with the low-pass
  typename V::M good;            // drawable: sound numbers within [near, far]
};

FG_HD View view_of(const float* pose, const float* k, int64_t width, int64_t height, float eps2d,
                   float near, float far, bool antialiased) {  // pose [4, 4], k: fx, fy, cx, cy
  View v;
  for (int r = 0; r < 3; ++r) {
    for (int c = 0; c < 3; ++c) v.R[3 * r + c] = pose[4 * r + c];
    v.t[r] = pose[4 * r + 3];
  }
  v.fx = k[0], v.fy = k[1], v.cx = k[2], v.cy = k[3];
  v.width = static_cast<float>(width), v.height = static_cast<float>(height);
  v.eps2d = eps2d, v.near = near, v.far = far, v.antialiased = antialiased;
  return v;
}

template <class F>
FG_HD_INLINE void rotation_of(const F q[4], F Q[9]) {
  const F w = q[0], x = q[1], y = q[2], z = q[3];
  Q[0] = 1.0f - 2.0f * (y * y + z * z), Q[1] = 2.0f * (x * y - w * z),
  Q[2] = 2.0f * (x * z + w * y);
  Q[3] = 2.0f * (x * y + w * z), Q[4] = 1.0f - 2.0f * (x * x + z * z),
  Q[5] = 2.0f * (y * z - w * x);
  Q[6] = 2.0f * (x * z - w * y), Q[7] = 2.0f * (y * z + w * x),
  Q[8] = 1.0f - 2.0f * (x * x + y * y);
}

template <class F>
FG_HD_INLINE void rotation_of_vjp(const F q[4], const F g[9], F v[4]) {
  const F w = q[0], x = q[1], y = q[2], z = q[3];
  v[0] = 2.0f * (x * (g[7] - g[5]) + y * (g[2] - g[6]) + z * (g[3] - g[1]));
  v[1] = 2.0f *
         (-2.0f * x * (g[4] + g[8]) + y * (g[1] + g[3]) + z * (g[2] + g[6]) + w * (g[7] - g[5]));
  v[2] =
      2.0f * (x * (g[1] + g[3]) - 2.0f * y * (g[0] + g[8]) + z * (g[5] + g[7]) + w * (g[2] - g[6]));
  v[3] =
      2.0f * (x * (g[2] + g[6]) + y * (g[5] + g[7]) - 2.0f * z * (g[0] + g[4]) + w * (g[3] - g[1]));
}

// EWA splatting, eqs. (2) and (3).
template <class V>
FG_HD_INLINE Ewa<V> ewa(const typename V::F mean[3], const typename V::F quat[4],
                        const typename V::F scale[3], const View& cam) {
  typedef typename V::F F;
  Ewa<V> e;
  e.x = cam.R[0] * mean[0] + cam.R[1] * mean[1] + cam.R[2] * mean[2] + cam.t[0];
  e.y = cam.R[3] * mean[0] + cam.R[4] * mean[1] + cam.R[5] * mean[2] + cam.t[1];
  e.z = cam.R[6] * mean[0] + cam.R[7] * mean[1] + cam.R[8] * mean[2] + cam.t[2];
  e.good = V::both(V::both(V::ge(e.z, V::all(cam.near)), V::ge(V::all(cam.far), e.z)),
                   V::both(V::finite(e.x), V::finite(e.y)));
  const F n2 = quat[0] * quat[0] + quat[1] * quat[1] + quat[2] * quat[2] + quat[3] * quat[3];
  e.good = V::both(e.good, V::both(V::gt(n2, V::all(0.0f)), V::finite(n2)));
  e.inv_norm = 1.0f / V::sqrt(n2);
  for (int k = 0; k < 4; ++k) e.q[k] = quat[k] * e.inv_norm;
  rotation_of(e.q, e.Q);

  // The Jacobian stops following the centre a margin outside the image, or a Gaussian beside the
  // camera would cover everything.
  const float tan_x = 0.5f * cam.width / cam.fx, tan_y = 0.5f * cam.height / cam.fy;
  const F lo_x = V::all(-(cam.cx / cam.fx + kFrustumMargin * tan_x));
  const F hi_x = V::all((cam.width - cam.cx) / cam.fx + kFrustumMargin * tan_x);
  const F lo_y = V::all(-(cam.cy / cam.fy + kFrustumMargin * tan_y));
  const F hi_y = V::all((cam.height - cam.cy) / cam.fy + kFrustumMargin * tan_y);
  const F sx = e.x / e.z, sy = e.y / e.z;
  e.lx = V::min(V::max(sx, lo_x), hi_x), e.ly = V::min(V::max(sy, lo_y), hi_y);
  e.free_x = V::both(V::ge(sx, lo_x), V::ge(hi_x, sx));
  e.free_y = V::both(V::ge(sy, lo_y), V::ge(hi_y, sy));

  const F jx = cam.fx / e.z, jy = cam.fy / e.z;
  for (int k = 0; k < 3; ++k) {
    e.T[k] = jx * (cam.R[k] - e.lx * cam.R[6 + k]);
    e.T[3 + k] = jy * (cam.R[3 + k] - e.ly * cam.R[6 + k]);
  }
  for (int r = 0; r < 2; ++r) {
    for (int k = 0; k < 3; ++k) {
      e.M[3 * r + k] = scale[k] * (e.T[3 * r] * e.Q[k] + e.T[3 * r + 1] * e.Q[3 + k] +
                                   e.T[3 * r + 2] * e.Q[6 + k]);
    }
  }
  const F* m = e.M;
  const F a0 = m[0] * m[0] + m[1] * m[1] + m[2] * m[2];
  const F c0 = m[3] * m[3] + m[4] * m[4] + m[5] * m[5];
  e.b = m[0] * m[3] + m[1] * m[4] + m[2] * m[5];
  // det(M M^T) as the squared cross product of M's rows: a sum of squares, so a thin Gaussian loses
  // no digits.
  const F k0 = m[1] * m[5] - m[2] * m[4], k1 = m[2] * m[3] - m[0] * m[5],
          k2 = m[0] * m[4] - m[1] * m[3];
  e.det0 = k0 * k0 + k1 * k1 + k2 * k2;
  e.a = a0 + cam.eps2d, e.c = c0 + cam.eps2d;
  e.det = e.det0 + cam.eps2d * (a0 + c0) + cam.eps2d * cam.eps2d;
  e.good = V::both(e.good, V::both(V::gt(e.det, V::all(0.0f)), V::finite(e.det)));
  return e;
}

// Half extents, px, of the ellipse alpha = 1/255 (0 where the opacity never reaches it, or numbers
// are not sound). No gradient flows here.
template <class V>
FG_HD_INLINE void half_extents(typename V::F A, typename V::F B, typename V::F C,
                               typename V::F opacity, typename V::F* hx, typename V::F* hy) {
  typedef typename V::F F;
  const F zero = V::all(0.0f), det = V::fma(A, C, -B * B);
  const F reach = 2.0f * V::log(opacity / kAlphaMin);
  const auto good = V::both(V::both(V::gt(det, zero), V::finite(det)),
                            V::both(V::gt(opacity, V::all(kAlphaMin)), V::finite(opacity)));
  *hx = V::select(good, V::sqrt(reach * (C / det)), zero);
  *hy = V::select(good, V::sqrt(reach * (A / det)), zero);
}

template <class V>
FG_HD_INLINE Splat<V> project(const typename V::F mean[3], const typename V::F quat[4],
                              const typename V::F scale[3], typename V::F opacity,
                              const View& cam) {
  typedef typename V::F F;
  const Ewa<V> e = ewa<V>(mean, quat, scale, cam);
  const F zero = V::all(0.0f), inv = 1.0f / e.det;
  const F A = e.c * inv, B = -e.b * inv, C = e.a * inv;
  const F u = cam.fx * e.x / e.z + cam.cx, v = cam.fy * e.y / e.z + cam.cy;
  F rho = V::all(1.0f);
  if (cam.antialiased)
    rho = V::sqrt(V::max(e.det0 * inv, V::all(kCompensationMin * kCompensationMin)));
  F hx, hy;
  half_extents<V>(A, B, C, opacity * rho, &hx, &hy);
  const F limit = V::all(1073741824.0f);
  const F rx = V::ceil(V::min(hx, limit)), ry = V::ceil(V::min(hy, limit));
  auto seen = V::both(V::both(V::gt(rx, zero), V::gt(ry, zero)), V::finite(A + B + C));
  seen = V::both(seen, V::both(V::gt(u + rx, zero), V::gt(V::all(cam.width), u - rx)));
  seen = V::both(seen, V::both(V::gt(v + ry, zero), V::gt(V::all(cam.height), v - ry)));
  seen = V::both(seen, e.good);
  Splat<V> s;
  s.u = V::select(seen, u, zero), s.v = V::select(seen, v, zero);
  s.depth = V::select(seen, e.z, zero);
  s.A = V::select(seen, A, zero), s.B = V::select(seen, B, zero), s.C = V::select(seen, C, zero);
  s.rho = V::select(seen, rho, zero);
  s.rx = V::select(seen, rx, zero), s.ry = V::select(seen, ry, zero);
  return s;
}

// Of a Gaussian that `project` did not cull.
template <class V>
FG_HD_INLINE GaussianGrad<V> project_vjp(const typename V::F mean[3], const typename V::F quat[4],
                                         const typename V::F scale[3], const View& cam,
                                         const SplatGrad<V>& g) {
  typedef typename V::F F;
  const F zero = V::all(0.0f);
  GaussianGrad<V> out;
  const Ewa<V> e = ewa<V>(mean, quat, scale, cam);
  const F inv = 1.0f / e.det;
  // Conic X = Sigma2^-1: dSigma2 = -X G X; vb is the slope in the off-diagonal b, which Sigma2
  // holds twice.
  const F A = e.c * inv, B = -e.b * inv, C = e.a * inv, gb = 0.5f * g.B;
  F va = -(A * (A * g.A + B * gb) + B * (A * gb + B * g.C));
  F vb = -2.0f * (A * (B * g.A + C * gb) + B * (B * gb + C * g.C));
  F vc = -(B * (B * g.A + C * gb) + C * (B * gb + C * g.C));
  const F ratio = e.det0 * inv;
  if (cam.antialiased) {
    // rho = sqrt(det0 / det), floored: no slope at the floor.
    const auto above = V::gt(ratio, V::all(kCompensationMin * kCompensationMin));
    const F vr = V::select(above, g.rho * 0.5f / V::sqrt(ratio) * inv, zero);
    va += vr * ((e.c - cam.eps2d) - ratio * e.c);
    vb += vr * (-2.0f * e.b + ratio * 2.0f * e.b);
    vc += vr * ((e.a - cam.eps2d) - ratio * e.a);
  }
  // Sigma2 = M M^T (+ low-pass), M = T Q S.
  F vM[6], vT[6] = {zero, zero, zero, zero, zero, zero}, vQ[9];
  for (int k = 0; k < 3; ++k) {
    vM[k] = 2.0f * va * e.M[k] + vb * e.M[3 + k];
    vM[3 + k] = vb * e.M[k] + 2.0f * vc * e.M[3 + k];
  }
  for (int k = 0; k < 3; ++k) {
    F vs = zero;
    for (int i = 0; i < 3; ++i) {
      const F vL = e.T[i] * vM[k] + e.T[3 + i] * vM[3 + k];
      vs += vL * e.Q[3 * i + k];
      vQ[3 * i + k] = vL * scale[k];
      const F L = e.Q[3 * i + k] * scale[k];
      vT[i] += vM[k] * L;
      vT[3 + i] += vM[3 + k] * L;
    }
    out.scale[k] = vs;
  }
  F vq[4], radial = zero;
  rotation_of_vjp(e.q, vQ, vq);
  for (int k = 0; k < 4; ++k) radial += vq[k] * e.q[k];
  for (int k = 0; k < 4; ++k) out.quat[k] = (vq[k] - radial * e.q[k]) * e.inv_norm;

  // T row x = fx/z (R row 0 - lx R row 2), row y alike.
  const F jx = cam.fx / e.z, jy = cam.fy / e.z, iz = 1.0f / e.z;
  F vlx = zero, vly = zero, vz = g.depth;
  for (int k = 0; k < 3; ++k) {
    vz -= (vT[k] * e.T[k] + vT[3 + k] * e.T[3 + k]) * iz;
    vlx -= jx * vT[k] * cam.R[6 + k];
    vly -= jy * vT[3 + k] * cam.R[6 + k];
    out.R[k] = jx * vT[k];
    out.R[3 + k] = jy * vT[3 + k];
    out.R[6 + k] = -jx * e.lx * vT[k] - jy * e.ly * vT[3 + k];
  }
  F vsx = jx * e.z * g.u, vsy = jy * e.z * g.v;  // u = fx x/z + cx
  vsx += V::select(e.free_x, vlx, zero);         // the clamp has zero slope
  vsy += V::select(e.free_y, vly, zero);
  const F vp[3] = {vsx * iz, vsy * iz, vz - (vsx * e.x + vsy * e.y) * iz * iz};
  for (int i = 0; i < 3; ++i) {
    out.mean[i] = cam.R[i] * vp[0] + cam.R[3 + i] * vp[1] + cam.R[6 + i] * vp[2];
    out.t[i] = vp[i];
    for (int k = 0; k < 3; ++k) out.R[3 * i + k] += vp[i] * mean[k];
  }
  return out;
}

}  // namespace fg
