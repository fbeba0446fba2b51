"""Real spherical harmonics up to degree 3 in the sign convention of 3D Gaussian splatting.

A colour is their sum + 0.5, clamped below at 0.
"""

import jax.numpy as jnp
from jaxtyping import Bool, Float

from fg3dgs_jax.geometry import camera_center, short_spread, short_sum
from fg3dgs_jax.types import Array, Camera

MAX_DEGREE = 3
# The constant harmonic, 1 / (2 sqrt(pi)): the colour of degree 0 is SH_BAND_0 * sh[0] + 0.5.
SH_BAND_0 = 0.28209479177387814

_C1 = 0.4886025119029199  # sqrt(3 / (4 pi))
_C2 = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
_C3 = (
    0.5900435899266435,
    2.890611442640554,
    0.4570457994644658,
    0.3731763325901154,
    1.445305721320277,
)


def sh_basis(dirs: Float[Array, "*batch 3"], degree: int) -> Float[Array, "*batch k"]:
    """The K = (degree + 1)^2 basis values of unit vectors, ordered by l, then m.

    Raises:
      ValueError: a degree outside 0 to 3.
    """
    _check_degree(degree)
    x, y, z = dirs[..., 0], dirs[..., 1], dirs[..., 2]
    values = [jnp.full_like(x, SH_BAND_0)]
    if degree >= 1:
        values += [-_C1 * y, _C1 * z, -_C1 * x]
    xx, yy, zz = x * x, y * y, z * z
    if degree >= 2:
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


def eval_sh(
    sh: Float[Array, "*#batch k 3"], dirs: Float[Array, "*#batch 3"], degree: int
) -> Float[Array, "*#batch 3"]:
    """Colours of SH coefficients seen along directions.

    Only the first (degree + 1)^2 coefficients are read, so that the degree can grow during
    training while K stays fixed.

    Args:
      sh: the coefficients, band 0 first.
      dirs: from the camera to the Gaussian, of any length.
      degree: 0 to 3.

    Returns:
      Colours, at least 0.

    Raises:
      ValueError: a degree outside 0 to 3, or fewer coefficients than it needs.
    """
    _check_degree(degree)
    bases = (degree + 1) ** 2
    if sh.ndim < 2 or sh.shape[-2] < bases:
        raise ValueError(
            f"sh has shape {tuple(sh.shape)}; "
            f"expected [..., N, K, 3] with K >= {bases} for degree {degree}"
        )
    basis = sh_basis(_unit(dirs), degree)
    color = short_sum(short_spread(basis, -1, 3) * sh[..., :bases, :], -2)
    return jnp.maximum(color + 0.5, 0.0)


def view_colors(
    sh: Float[Array, "*#batch n k 3"],
    means: Float[Array, "*#batch n 3"],
    camera: Camera,
    degree: int,
    visible: Bool[Array, "*#batch n"] | None = None,
) -> Float[Array, "*#batch n 3"]:
    """Colours of Gaussians as a camera sees them.

    Args:
      sh: SH coefficients.
      means: centres, metres.
      camera: whose pose gives the directions.
      degree: 0 to 3.
      visible: which Gaussians are drawn (None: all). The others get a constant direction, so that
        unsound centres bring no NaN into a gradient.

    Returns:
      Colours, at least 0.
    """
    center = camera_center(camera.world_to_camera)[..., None, :]
    if visible is None:
        return eval_sh(sh, means - center, degree)
    keep = visible[..., None]
    return eval_sh(sh, jnp.where(keep, jnp.where(keep, means, 0.0) - center, 1.0), degree)


def _unit(v: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3"]:
    """Unit vectors. The zero vector stays zero, with a finite gradient."""
    squared = short_sum(v * v, -1)[..., None]
    nonzero = squared > 0.0
    return jnp.where(nonzero, v / jnp.sqrt(jnp.where(nonzero, squared, 1.0)), 0.0)


def _check_degree(degree: int) -> None:
    if degree not in range(MAX_DEGREE + 1):
        raise ValueError(f"SH degree {degree!r} is not supported; expected 0 to {MAX_DEGREE}")
