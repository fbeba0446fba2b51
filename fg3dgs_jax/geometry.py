"""Rotations, rigid transforms and pose interpolation: differentiable, any leading batch dimensions.

Quaternions are wxyz. Rigid transforms are [..., 4, 4] acting on column vectors. Camera axes are
OpenCV's (x right, y down, z forward).
"""

import functools

import jax
import jax.numpy as jnp

EPS = 1e-12


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def short_sum(x, axis):
    """Sum over an axis of a few entries, written out: `jnp.sum` of it and, as its gradient, of
    what `short_spread` repeats are slow on CPUs, where XLA runs them row by row.
    """
    return sum(jax.lax.index_in_dim(x, i, axis, keepdims=False) for i in range(x.shape[axis]))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def short_spread(x, axis, size):
    """x repeated `size` times along a new axis; its gradient is `short_sum`."""
    x = jnp.expand_dims(x, axis)
    axis %= x.ndim
    return jnp.broadcast_to(x, (*x.shape[:axis], size, *x.shape[axis + 1 :]))


short_sum.defvjp(
    lambda x, axis: (short_sum(x, axis), x.shape[axis]),
    lambda axis, size, v: (short_spread(v, axis, size),),
)
short_spread.defvjp(
    lambda x, axis, size: (short_spread(x, axis, size), None),
    lambda axis, size, _, v: (short_sum(v, axis),),
)


def safe_norm(x, axis=-1, keepdims=False):
    """Euclidean norm whose gradient at 0 is 0, where `jnp.linalg.norm` gives NaN."""
    square = jnp.sum(x * x, axis=axis, keepdims=keepdims)
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)


def normalize(x, axis=-1):
    """x / |x|; a vector shorter than 1e-12 stays (nearly) zero."""
    return x / jnp.maximum(safe_norm(x, axis, keepdims=True), EPS)


def quat_to_rotmat(quat):
    """[..., 4] wxyz of any length (normalised here) -> rotation matrices [..., 3, 3]."""
    w, x, y, z = jnp.moveaxis(normalize(quat), -1, 0)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def rotmat_to_quat(rotation):
    """Rotation matrices [..., 3, 3] -> unit quaternions [..., 4] wxyz with w >= 0.

    Row k of the symmetric matrix below is 4 q_k q. The row of the largest component is well
    conditioned, so half turns, where w is 0, are as exact as any.
    """
    m = rotation
    (a, b, c), (d, e, f), (g, h, i) = [[m[..., r, s] for s in range(3)] for r in range(3)]
    rows = (
        (1 + a + e + i, h - f, c - g, d - b),
        (h - f, 1 + a - e - i, b + d, c + g),
        (c - g, b + d, 1 - a + e - i, f + h),
        (d - b, c + g, f + h, 1 - a - e + i),
    )
    table = jnp.stack([jnp.stack(row, -1) for row in rows], -2)  # [..., 4, 4]
    best = jnp.argmax(jnp.diagonal(table, axis1=-2, axis2=-1), -1)[..., None, None]
    quat = normalize(jnp.take_along_axis(table, best, axis=-2)[..., 0, :])
    return jnp.where(quat[..., :1] < 0, -quat, quat)


def rigid(rotation, translation):
    """[..., 3, 3] and [..., 3] -> [..., 4, 4]."""
    top = jnp.concatenate([rotation, translation[..., None]], -1)
    last = jnp.broadcast_to(jnp.array([0.0, 0.0, 0.0, 1.0], top.dtype), (*top.shape[:-2], 1, 4))
    return jnp.concatenate([top, last], -2)


def invert_rigid(transform):
    """Inverse of a rigid [..., 4, 4] by transposition."""
    rotation = jnp.swapaxes(transform[..., :3, :3], -1, -2)
    return rigid(rotation, -jnp.einsum("...ij,...j->...i", rotation, transform[..., :3, 3]))


def transform_points(transform, points):
    """[..., 4, 4], [..., N, 3] -> [..., N, 3]."""
    rotated = jnp.einsum("...ij,...nj->...ni", transform[..., :3, :3], points)
    return rotated + transform[..., None, :3, 3]


def camera_center(world_to_camera):
    """World position [..., 3] of the camera of [..., 4, 4]."""
    rotation, translation = world_to_camera[..., :3, :3], world_to_camera[..., :3, 3]
    return -jnp.einsum("...ji,...j->...i", rotation, translation)


def project_points(points, camera):
    """World points [..., N, 3] under a `types.Camera` -> pixels [..., N, 2] (x, y)."""
    x, y, z = jnp.moveaxis(transform_points(camera.world_to_camera, points), -1, 0)
    fx, fy, cx, cy = (jnp.asarray(v)[..., None] for v in camera[1:])
    return jnp.stack([fx * x / z + cx, fy * y / z + cy], -1)


def triangulate(pixels, camera):
    """World points [N, 3] seen at pixels [T, N, 2] by a `types.Camera` of T frames.

    Least squares over the distances in the image planes; what no parallax tells (all poses alike)
    is drawn towards the origin.
    """
    pose = camera.world_to_camera
    u = (pixels[..., 0] - camera.cx[:, None]) / camera.fx[:, None]
    v = (pixels[..., 1] - camera.cy[:, None]) / camera.fy[:, None]
    rows, offsets = [], []
    for axis, slope in ((0, u), (1, v)):  # (R_axis - slope R_z) x = slope t_z - t_axis
        rows.append(pose[:, None, axis, :3] - slope[..., None] * pose[:, None, 2, :3])
        offsets.append(slope * pose[:, None, 2, 3] - pose[:, None, axis, 3])
    a, b = jnp.concatenate(rows), jnp.concatenate(offsets)  # [2 T, N, 3], [2 T, N]
    normal = jnp.einsum("tni,tnj->nij", a, a) + 1e-4 * len(pixels) * jnp.eye(3)
    return jnp.linalg.solve(normal, jnp.einsum("tni,tn->ni", a, b)[..., None])[..., 0]


def look_at(eye, target, up=(0.0, 1.0, 0.0)):
    """world_to_camera [..., 4, 4] of a camera at `eye` facing `target`, `up` being up (-y)."""
    eye, target = jnp.asarray(eye, jnp.float32), jnp.asarray(target, jnp.float32)
    forward = normalize(target - eye)
    right = normalize(
        jnp.cross(forward, jnp.broadcast_to(jnp.asarray(up, jnp.float32), forward.shape))
    )
    rotation = jnp.stack([right, jnp.cross(forward, right), forward], -2)  # rows x, y (down), z
    return rigid(rotation, -jnp.einsum("...ij,...j->...i", rotation, eye))


def slerp(start, end, fraction):
    """Unit quaternion(s) [..., 4] a `fraction` [...] of the shorter way from `start` to `end`."""
    start, end = normalize(start), normalize(end)
    cosine = jnp.sum(start * end, -1)
    end = jnp.where(cosine[..., None] < 0, -end, end)
    cosine = jnp.minimum(jnp.abs(cosine), 1.0)
    near = cosine > 1 - 1e-6  # sin(angle) loses its digits there and the chord equals the arc
    angle = jnp.arccos(jnp.where(near, 0.0, cosine))
    t = jnp.asarray(fraction)
    first = jnp.where(near, 1 - t, jnp.sin((1 - t) * angle) / jnp.sin(angle))
    second = jnp.where(near, t, jnp.sin(t * angle) / jnp.sin(angle))
    return normalize(first[..., None] * start + second[..., None] * end)


def interpolate_poses(transforms, times):
    """Rigid transforms [T, 4, 4] known at 0, 1 .. T-1, read at `times` [M] (clamped) -> [M, 4, 4].

    Rotations go along great circles, and camera centres (not translations) along straight lines: a
    camera that turns about itself then stays where it is.
    """
    last = len(transforms) - 1
    t = jnp.clip(jnp.asarray(times, jnp.float32), 0, last)
    low = jnp.clip(jnp.floor(t).astype(jnp.int32), 0, max(last - 1, 0))
    high = jnp.minimum(low + 1, last)
    fraction = t - low
    quats, centers = rotmat_to_quat(transforms[:, :3, :3]), camera_center(transforms)
    rotation = quat_to_rotmat(slerp(quats[low], quats[high], fraction))
    center = centers[low] + fraction[:, None] * (centers[high] - centers[low])
    return rigid(rotation, -jnp.einsum("mij,mj->mi", rotation, center))
