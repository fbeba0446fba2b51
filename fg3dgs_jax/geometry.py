"""Rotations, rigid transforms and pinhole cameras, differentiable, with any leading dimensions.

Quaternions are wxyz. Rigid transforms are [..., 4, 4] acting on column vectors. Camera axes are
OpenCV's (x right, y down, z forward). World units are metres. In an annotation `*batch` are leading
dimensions, and `*#batch` ones that may each be 1 where another argument has more.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from fg3dgs_jax.types import Array, Camera

# Below this length a vector has no direction.
EPS = 1e-12
# What draws points without parallax towards the origin, a frame. See `triangulate`.
_PULL = 1e-4


def short_sum(x: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """Sums over an axis of a few entries, written out term by term.

    On CPUs, XLA runs `jnp.sum` over such an axis row by row, which is slow. The same holds for the
    gradient of a repeat, which is why `short_spread` is written as its transpose.
    """
    return _short_sum(x, axis)


def short_spread(x: Float[Array, "..."], axis: int, size: int) -> Float[Array, "..."]:
    """Repeats `x` `size` times along a new axis. Its gradient is `short_sum`."""
    return _short_spread(x, axis, size)


def _sum(x: Array, axis: int) -> Array:
    total = jax.lax.index_in_dim(x, 0, axis, keepdims=False)
    for i in range(1, x.shape[axis]):
        total = total + jax.lax.index_in_dim(x, i, axis, keepdims=False)
    return total


def _spread(x: Array, axis: int, size: int) -> Array:
    x = jnp.expand_dims(x, axis)
    axis %= x.ndim
    return jnp.broadcast_to(x, (*x.shape[:axis], size, *x.shape[axis + 1 :]))


def _short_sum_fwd(x: Array, axis: int) -> tuple[Array, int]:
    return short_sum(x, axis), x.shape[axis]


def _short_sum_bwd(axis: int, size: int, v: Array) -> tuple[Array]:
    return (short_spread(v, axis, size),)


def _short_spread_fwd(x: Array, axis: int, size: int) -> tuple[Array, None]:
    return short_spread(x, axis, size), None


def _short_spread_bwd(axis: int, size: int, _: None, v: Array) -> tuple[Array]:
    return (short_sum(v, axis),)


_short_sum = jax.custom_vjp(_sum, nondiff_argnums=(1,))
_short_sum.defvjp(_short_sum_fwd, _short_sum_bwd)
_short_spread = jax.custom_vjp(_spread, nondiff_argnums=(1, 2))
_short_spread.defvjp(_short_spread_fwd, _short_spread_bwd)


def safe_norm(
    x: Float[Array, "..."], axis: int = -1, keepdims: bool = False
) -> Float[Array, "..."]:
    """Euclidean norm whose gradient at 0 is 0, where `jnp.linalg.norm` gives NaN."""
    square = jnp.sum(x * x, axis=axis, keepdims=keepdims)
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)


def normalize(x: Float[Array, "*shape"], axis: int = -1) -> Float[Array, "*shape"]:
    """Scales vectors to length 1. One shorter than 1e-12 stays (nearly) zero."""
    return x / jnp.maximum(safe_norm(x, axis, keepdims=True), EPS)


def quat_to_rotmat(quat: Float[Array, "*batch 4"]) -> Float[Array, "*batch 3 3"]:
    """Rotation matrices of wxyz quaternions of any length. They are normalised here."""
    w, x, y, z = jnp.moveaxis(normalize(quat), -1, 0)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def transform_points(
    transform: Float[Array, "*#batch 4 4"], points: Float[Array, "*#batch n 3"]
) -> Float[Array, "*#batch n 3"]:
    """Applies rigid transforms to points."""
    rotated = jnp.einsum("...ij,...nj->...ni", transform[..., :3, :3], points)
    return rotated + transform[..., None, :3, 3]


def camera_center(world_to_camera: Float[Array, "*batch 4 4"]) -> Float[Array, "*batch 3"]:
    """World position of a camera, in metres."""
    rotation, translation = world_to_camera[..., :3, :3], world_to_camera[..., :3, 3]
    return jnp.einsum("...ij,...j->...i", -jnp.swapaxes(rotation, -1, -2), translation)


def project_points(
    points: Float[Array, "*#batch n 3"], camera: Camera
) -> Float[Array, "*#batch n 2"]:
    """Pixels (x, y) at which cameras see world points in metres."""
    x, y, z = jnp.moveaxis(transform_points(camera.world_to_camera, points), -1, 0)
    fx, fy, cx, cy = (jnp.asarray(v)[..., None] for v in camera[1:])
    return jnp.stack([fx * x / z + cx, fy * y / z + cy], -1)


def triangulate(pixels: Float[Array, "t n 2"], camera: Camera) -> Float[Array, "n 3"]:
    """World points, in metres, of what T frames show at `pixels` (x, y).

    It minimises squared distances in the image planes. Where the poses leave a depth open, because
    all of them are alike, the point is drawn towards the origin.

    Args:
      pixels: where each of n points appears in each of T frames.
      camera: the cameras of the T frames, every field with a leading [T].

    Returns:
      The points.
    """
    pose = camera.world_to_camera
    u = (pixels[..., 0] - camera.cx[:, None]) / camera.fx[:, None]
    v = (pixels[..., 1] - camera.cy[:, None]) / camera.fy[:, None]
    rows: list[Array] = []
    offsets: list[Array] = []
    for axis, slope in ((0, u), (1, v)):  # (R_axis - slope R_z) x = slope t_z - t_axis
        rows.append(pose[:, None, axis, :3] - slope[..., None] * pose[:, None, 2, :3])
        offsets.append(slope * pose[:, None, 2, 3] - pose[:, None, axis, 3])
    a, b = jnp.concatenate(rows), jnp.concatenate(offsets)  # [2 T, N, 3], [2 T, N]
    normal = jnp.einsum("tni,tnj->nij", a, a) + _PULL * len(pixels) * jnp.eye(3)
    return jnp.linalg.solve(normal, jnp.einsum("tni,tn->ni", a, b)[..., None])[..., 0]
