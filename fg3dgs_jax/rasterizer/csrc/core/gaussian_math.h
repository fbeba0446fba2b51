// The maths of one Gaussian and one camera: forward and vjp side by side, for host and device. Only
// loops live elsewhere.
#pragma once

#include <math.h>
#include <stdint.h>

#include "core/constants.h"

// Free functions are static: the CPU's kernels are compiled once per instruction set and must not
// share bodies.
#ifdef __CUDACC__
#define FG_HD __host__ __device__ static inline
#define FG_HD_INLINE __host__ __device__ static __forceinline__
#define FG_HD_MEMBER __host__ __device__
#else
#define FG_HD static inline
#define FG_HD_INLINE static inline __attribute__((always_inline))
#define FG_HD_MEMBER
#endif

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

struct Splat {        // a projected Gaussian
  float u, v, depth;  // px, px, m
  float A, B, C;      // inverse of the 2D covariance
  float rho;          // antialiasing factor (1 where off)
  int rx, ry;         // half size of the box where alpha >= 1/255; 0: culled
};

struct SplatGrad {
  float u, v, depth, A, B, C, rho;
};

struct GaussianGrad {
  float mean[3], quat[4], scale[3];
  float R[9], t[3];  // this Gaussian's share of the camera's gradient
};

// Everything the forward makes on the way to a splat; the vjp starts by making it again.
struct Ewa {
  float q[4], inv_norm;  // unit wxyz, 1 / |quat|
  float Q[9];            // rotation of q
  float x, y, z;         // camera space, m
  float lx, ly;          // clamped x / z, y / z
  bool free_x, free_y;   // not clamped
  float T[6];            // J W
  float M[6];            // J W Q S, so the 2D covariance is M M^T
  float a, b, c;         // with the low-pass
  float det0, det;       // without and with the low-pass
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

FG_HD void rotation_of(const float q[4], float Q[9]) {
  const float w = q[0], x = q[1], y = q[2], z = q[3];
  Q[0] = 1 - 2 * (y * y + z * z), Q[1] = 2 * (x * y - w * z), Q[2] = 2 * (x * z + w * y);
  Q[3] = 2 * (x * y + w * z), Q[4] = 1 - 2 * (x * x + z * z), Q[5] = 2 * (y * z - w * x);
  Q[6] = 2 * (x * z - w * y), Q[7] = 2 * (y * z + w * x), Q[8] = 1 - 2 * (x * x + y * y);
}

FG_HD void rotation_of_vjp(const float q[4], const float g[9], float v[4]) {
  const float w = q[0], x = q[1], y = q[2], z = q[3];
  v[0] = 2 * (x * (g[7] - g[5]) + y * (g[2] - g[6]) + z * (g[3] - g[1]));
  v[1] = 2 * (-2 * x * (g[4] + g[8]) + y * (g[1] + g[3]) + z * (g[2] + g[6]) + w * (g[7] - g[5]));
  v[2] = 2 * (x * (g[1] + g[3]) - 2 * y * (g[0] + g[8]) + z * (g[5] + g[7]) + w * (g[2] - g[6]));
  v[3] = 2 * (x * (g[2] + g[6]) + y * (g[5] + g[7]) - 2 * z * (g[0] + g[4]) + w * (g[3] - g[1]));
}

FG_HD bool finite(float x) { return fabsf(x) <= 3.402823466e38f; }  // false for NaN too

// EWA splatting, eqs. (2) and (3). False: not drawable (bad numbers or outside [near, far]).
FG_HD bool ewa(const float* mean, const float* quat, const float* scale, const View& cam, Ewa* e) {
  e->x = cam.R[0] * mean[0] + cam.R[1] * mean[1] + cam.R[2] * mean[2] + cam.t[0];
  e->y = cam.R[3] * mean[0] + cam.R[4] * mean[1] + cam.R[5] * mean[2] + cam.t[1];
  e->z = cam.R[6] * mean[0] + cam.R[7] * mean[1] + cam.R[8] * mean[2] + cam.t[2];
  if (!(e->z >= cam.near && e->z <= cam.far && finite(e->x) && finite(e->y))) return false;
  const float n2 = quat[0] * quat[0] + quat[1] * quat[1] + quat[2] * quat[2] + quat[3] * quat[3];
  if (!(n2 > 0.0f && finite(n2))) return false;
  e->inv_norm = 1.0f / sqrtf(n2);
  for (int k = 0; k < 4; ++k) e->q[k] = quat[k] * e->inv_norm;
  rotation_of(e->q, e->Q);

  // The Jacobian stops following the centre a margin outside the image, or a Gaussian beside the
  // camera would cover everything.
  const float tan_x = 0.5f * cam.width / cam.fx, tan_y = 0.5f * cam.height / cam.fy;
  const float sx = e->x / e->z, sy = e->y / e->z;
  const float lo_x = -(cam.cx / cam.fx + kFrustumMargin * tan_x);
  const float hi_x = (cam.width - cam.cx) / cam.fx + kFrustumMargin * tan_x;
  const float lo_y = -(cam.cy / cam.fy + kFrustumMargin * tan_y);
  const float hi_y = (cam.height - cam.cy) / cam.fy + kFrustumMargin * tan_y;
  e->lx = fminf(fmaxf(sx, lo_x), hi_x), e->ly = fminf(fmaxf(sy, lo_y), hi_y);
  e->free_x = sx >= lo_x && sx <= hi_x, e->free_y = sy >= lo_y && sy <= hi_y;

  const float jx = cam.fx / e->z, jy = cam.fy / e->z;
  for (int k = 0; k < 3; ++k) {
    e->T[k] = jx * (cam.R[k] - e->lx * cam.R[6 + k]);
    e->T[3 + k] = jy * (cam.R[3 + k] - e->ly * cam.R[6 + k]);
  }
  for (int r = 0; r < 2; ++r) {
    for (int k = 0; k < 3; ++k) {
      e->M[3 * r + k] = scale[k] * (e->T[3 * r] * e->Q[k] + e->T[3 * r + 1] * e->Q[3 + k] +
                                    e->T[3 * r + 2] * e->Q[6 + k]);
    }
  }
  const float* m = e->M;
  const float a0 = m[0] * m[0] + m[1] * m[1] + m[2] * m[2];
  const float c0 = m[3] * m[3] + m[4] * m[4] + m[5] * m[5];
  e->b = m[0] * m[3] + m[1] * m[4] + m[2] * m[5];
  // det(M M^T) as the squared cross product of M's rows: a sum of squares, so a thin Gaussian loses
  // no digits.
  const float k0 = m[1] * m[5] - m[2] * m[4], k1 = m[2] * m[3] - m[0] * m[5],
              k2 = m[0] * m[4] - m[1] * m[3];
  e->det0 = k0 * k0 + k1 * k1 + k2 * k2;
  e->a = a0 + cam.eps2d, e->c = c0 + cam.eps2d;
  e->det = e->det0 + cam.eps2d * (a0 + c0) + cam.eps2d * cam.eps2d;
  return e->det > 0.0f && finite(e->det);
}

// Half extents, px, of the ellipse alpha = 1/255 (0 where the opacity never reaches it). No
// gradient flows here.
FG_HD void half_extents(float A, float B, float C, float opacity, float* hx, float* hy) {
  const float det = fmaf(A, C, -B * B);
  if (!(det > 0.0f && finite(det) && opacity > kAlphaMin && finite(opacity))) {
    *hx = *hy = 0.0f;
    return;
  }
  const float reach = 2.0f * logf(opacity / kAlphaMin);
  *hx = sqrtf(reach * (C / det));
  *hy = sqrtf(reach * (A / det));
}

FG_HD Splat project(const float* mean, const float* quat, const float* scale, float opacity,
                    const View& cam) {
  Splat s = {0, 0, 0, 0, 0, 0, 0, 0, 0};
  Ewa e;
  if (!ewa(mean, quat, scale, cam, &e)) return s;
  const float inv = 1.0f / e.det;
  const float A = e.c * inv, B = -e.b * inv, C = e.a * inv;
  const float u = cam.fx * e.x / e.z + cam.cx, v = cam.fy * e.y / e.z + cam.cy;
  const float ratio = fmaxf(e.det0 * inv, kCompensationMin * kCompensationMin);
  const float rho = cam.antialiased ? sqrtf(ratio) : 1.0f;
  float hx, hy;
  half_extents(A, B, C, opacity * rho, &hx, &hy);
  const float rx = fminf(ceilf(hx), 1073741824.0f), ry = fminf(ceilf(hy), 1073741824.0f);
  const bool seen =
      rx > 0 && ry > 0 && u + rx > 0 && u - rx < cam.width && v + ry > 0 && v - ry < cam.height;
  if (!seen || !finite(A + B + C)) return s;
  s.u = u, s.v = v, s.depth = e.z, s.A = A, s.B = B, s.C = C, s.rho = rho;
  s.rx = static_cast<int>(rx), s.ry = static_cast<int>(ry);
  return s;
}

// Of a Gaussian that `project` did not cull.
FG_HD GaussianGrad project_vjp(const float* mean, const float* quat, const float* scale,
                               const View& cam, const SplatGrad& g) {
  GaussianGrad out;
  Ewa e;
  ewa(mean, quat, scale, cam, &e);
  const float inv = 1.0f / e.det;
  // Conic X = Sigma2^-1: dSigma2 = -X G X; vb is the slope in the off-diagonal b, which Sigma2
  // holds twice.
  const float A = e.c * inv, B = -e.b * inv, C = e.a * inv, gb = 0.5f * g.B;
  float va = -(A * (A * g.A + B * gb) + B * (A * gb + B * g.C));
  float vb = -2.0f * (A * (B * g.A + C * gb) + B * (B * gb + C * g.C));
  float vc = -(B * (B * g.A + C * gb) + C * (B * gb + C * g.C));
  const float ratio = e.det0 * inv;
  if (cam.antialiased && ratio > kCompensationMin * kCompensationMin) {
    // rho = sqrt(det0 / det), floored: no slope at the floor.
    const float vr = g.rho * 0.5f / sqrtf(ratio) * inv;
    va += vr * ((e.c - cam.eps2d) - ratio * e.c);
    vb += vr * (-2.0f * e.b + ratio * 2.0f * e.b);
    vc += vr * ((e.a - cam.eps2d) - ratio * e.a);
  }
  // Sigma2 = M M^T (+ low-pass), M = T Q S.
  float vM[6], vT[6] = {0, 0, 0, 0, 0, 0}, vQ[9];
  for (int k = 0; k < 3; ++k) {
    vM[k] = 2.0f * va * e.M[k] + vb * e.M[3 + k];
    vM[3 + k] = vb * e.M[k] + 2.0f * vc * e.M[3 + k];
  }
  for (int k = 0; k < 3; ++k) {
    float vs = 0.0f;
    for (int i = 0; i < 3; ++i) {
      const float vL = e.T[i] * vM[k] + e.T[3 + i] * vM[3 + k];
      vs += vL * e.Q[3 * i + k];
      vQ[3 * i + k] = vL * scale[k];
      const float L = e.Q[3 * i + k] * scale[k];
      vT[i] += vM[k] * L;
      vT[3 + i] += vM[3 + k] * L;
    }
    out.scale[k] = vs;
  }
  float vq[4], radial = 0.0f;
  rotation_of_vjp(e.q, vQ, vq);
  for (int k = 0; k < 4; ++k) radial += vq[k] * e.q[k];
  for (int k = 0; k < 4; ++k) out.quat[k] = (vq[k] - radial * e.q[k]) * e.inv_norm;

  // T row x = fx/z (R row 0 - lx R row 2), row y alike.
  const float jx = cam.fx / e.z, jy = cam.fy / e.z, iz = 1.0f / e.z;
  float vlx = 0.0f, vly = 0.0f, vz = g.depth;
  for (int k = 0; k < 3; ++k) {
    vz -= (vT[k] * e.T[k] + vT[3 + k] * e.T[3 + k]) * iz;
    vlx -= jx * vT[k] * cam.R[6 + k];
    vly -= jy * vT[3 + k] * cam.R[6 + k];
    out.R[k] = jx * vT[k];
    out.R[3 + k] = jy * vT[3 + k];
    out.R[6 + k] = -jx * e.lx * vT[k] - jy * e.ly * vT[3 + k];
  }
  float vsx = jx * e.z * g.u, vsy = jy * e.z * g.v;  // u = fx x/z + cx
  if (e.free_x) vsx += vlx;                          // the clamp has zero slope
  if (e.free_y) vsy += vly;
  const float vp[3] = {vsx * iz, vsy * iz, vz - (vsx * e.x + vsy * e.y) * iz * iz};
  for (int i = 0; i < 3; ++i) {
    out.mean[i] = cam.R[i] * vp[0] + cam.R[3 + i] * vp[1] + cam.R[6 + i] * vp[2];
    out.t[i] = vp[i];
    for (int k = 0; k < 3; ++k) out.R[3 * i + k] += vp[i] * mean[k];
  }
  return out;
}

}  // namespace fg
