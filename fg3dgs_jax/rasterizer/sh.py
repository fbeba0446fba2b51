"""Real spherical harmonics up to degree 3 in the sign convention of 3D Gaussian splatting.

A colour is their sum + 0.5, clamped below at 0.
"""

import jax
import jax.numpy as jnp

from fg3dgs_jax.geometry import short_spread, short_sum

Array = jax.Array

MAX_DEGREE = 3

_C0 = 0.28209479177387814  # 1 / (2 sqrt(pi))
_C1 = 0.4886025119029199  # sqrt(3 / (4 pi))
_C2 = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
_C3 = (
    0.5900435899266435,
    2.890611442640554,
    0.4570457994644658,
    0.3731763325901154,
    1.445305721320277,
)


def sh_basis(dirs: Array, degree: int) -> Array:
    """The K = (degree + 1)^2 basis values [..., K] of unit vectors dirs [..., 3]; by l, then m."""
    _check_degree(degree)
    x, y, z = dirs[..., 0], dirs[..., 1], dirs[..., 2]
    values = [jnp.full_like(x, _C0)]
    if degree >= 1:
        values += [-_C1 * y, _C1 * z, -_C1 * x]
    if degree >= 2:
        xx, yy, zz = x * x, y * y, z * z
        values += [
            _C2[0] * x * y,
            -_C2[0] * y * z,
            _C2[1] * (2 * zz - xx - yy),
            -_C2[0] * x * z,
            _C2[2] * (xx - yy),
        ]
    if degree >= 3:
        values += [
            -_C3[0] * y * (3 * xx - yy),
            _C3[1] * x * y * z,
            -_C3[2] * y * (4 * zz - xx - yy),
            _C3[3] * z * (2 * zz - 3 * xx - 3 * yy),
            -_C3[2] * x * (4 * zz - xx - yy),
            _C3[4] * z * (xx - yy),
            -_C3[0] * x * (xx - 3 * yy),
        ]
    return jnp.stack(values, axis=-1)


def eval_sh(sh: Array, dirs: Array, degree: int) -> Array:
    """Colours [..., N, 3] of coefficients sh [..., N, K, 3] seen along dirs [..., N, 3].

    dirs point from the camera to the Gaussian, of any length. Only the first (degree + 1)^2
    coefficients are read, so the degree can grow during training with K fixed.
    """
    _check_degree(degree)
    bases = (degree + 1) ** 2
    if sh.ndim < 2 or sh.shape[-2] < bases:
        raise ValueError(
            f"sh has shape {tuple(sh.shape)}; "
            f"expected [..., N, K, 3] with K >= {bases} for degree {degree}"
        )
    basis = sh_basis(_normalize(dirs), degree)
    color = short_sum(short_spread(basis, -1, 3) * sh[..., :bases, :], -2)
    return jnp.maximum(color + 0.5, 0.0)


def _normalize(v: Array) -> Array:
    """Unit vectors; the zero vector stays zero, with a finite gradient."""
    squared = short_sum(v * v, -1)[..., None]
    nonzero = squared > 0.0
    return jnp.where(nonzero, v / jnp.sqrt(jnp.where(nonzero, squared, 1.0)), 0.0)


def _check_degree(degree: int) -> None:
    if degree not in range(MAX_DEGREE + 1):
        raise ValueError(f"SH degree {degree!r} is not supported; expected 0 to {MAX_DEGREE}")
