"""MediaPipe's 478 landmarks of the embedded subject.

Outlines lie exactly on its lips, lids and oval, the rest on its skin.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax.clip.landmarks import (
    FACE_OVAL,
    INNER_LIPS,
    LEFT_BROW,
    LEFT_EYE,
    OUTER_LIPS,
    RIGHT_BROW,
    RIGHT_EYE,
)
from fg3dgs_jax.synthetic import head, sculpt
from fg3dgs_jax.synthetic.head import Pose

MIDLINE = {
    168: 0.010,
    6: 0.002,
    197: -0.007,
    195: -0.015,
    5: -0.023,
    4: -0.029,
    1: -0.033,
    19: -0.038,
    2: -0.043,
    164: -0.050,
}
RIGHT_IRIS, LEFT_IRIS = (468, 469, 470, 471, 472), (473, 474, 475, 476, 477)


@functools.cache
def still_coordinates() -> np.ndarray:
    """Face coordinates [478, 2] on the still head.

    A sunflower over the face, with oval, brows and midline in place.
    """
    k = np.arange(478)
    angle, far = 2.39996 * k, np.sqrt((k + 0.5) / 478)
    points = np.stack([0.085 * far * np.sin(angle), -0.025 + 0.085 * far * np.cos(angle)], -1)
    turn = 2 * np.pi * np.arange(len(FACE_OVAL)) / len(FACE_OVAL)
    width = np.where(np.cos(turn) > 0, 0.108, 0.108 - 0.030 * np.cos(turn) ** 2)
    points[list(FACE_OVAL)] = np.stack([width * np.sin(turn), -0.0235 + 0.0935 * np.cos(turn)], -1)
    x = np.concatenate([np.linspace(0.058, 0.016, 5), np.linspace(0.016, 0.058, 5)])
    q = (x - 0.0135) / 0.047
    b = (
        0.0185
        + 0.0075 * np.sin(np.pi * (q * 0.86 + 0.10))
        - 0.0015 * q
        + np.repeat([0.0025, -0.0025], 5)
    )
    points[list(RIGHT_BROW)] = np.stack([-x, b], -1)
    points[list(LEFT_BROW)] = np.stack([x, b], -1)
    for index, b in MIDLINE.items():
        points[index] = 0.0, b
    return points.astype(np.float32)


@jax.jit
def world_points(pose: Pose, radius: jax.Array) -> jax.Array:
    """The landmarks [478, 3] in the head frame (metres) of one pose on its radius table."""
    still = jnp.asarray(still_coordinates())
    a, b = still[:, 0], still[:, 1]
    for _ in range(5):  # where the skin of the still head is now: the inverse of `canonical`
        ca, cb = head.canonical(pose, a, b)
        a, b = a - (ca - still[:, 0]), b - (cb - still[:, 1])
    coordinates = jnp.stack([a, b], -1)
    inner, outer, *_ = head.mouth_shape(pose)
    line = jnp.linspace(-1.0, 1.0, 11)
    coordinates = coordinates.at[np.array(OUTER_LIPS)].set(_lip_loop(pose, line * outer, 0, 3))
    coordinates = coordinates.at[np.array(INNER_LIPS)].set(_lip_loop(pose, line * inner, 1, 2))
    lids = _lid_loop(pose)
    coordinates = coordinates.at[np.array(RIGHT_EYE)].set(lids * jnp.array([-1.0, 1.0]))
    coordinates = coordinates.at[np.array(LEFT_EYE)].set(lids)
    a, b = coordinates[:, 0], coordinates[:, 1]
    points = sculpt.directions(a, b, jnp) * head.lookup(radius, a, b)[:, None]
    for indices, side in ((RIGHT_IRIS, -1.0), (LEFT_IRIS, 1.0)):
        points = points.at[np.array(indices)].set(_iris(pose, side))
    return points @ head.TO_SCULPT


def _lip_loop(pose, a, upper, lower):
    """20 points: the upper line from the right corner to the left one, the lower line back."""
    curves = head.lip_curves(pose, a)
    forth = jnp.stack([a, curves[upper]], -1)
    back = jnp.stack([a, curves[lower]], -1)[::-1]
    return jnp.concatenate([forth, back[1:-1]])


def _lid_loop(pose):
    """16 points of the left eye: outer corner, lower lid to the inner corner, upper lid back."""
    x = sculpt.EYE[0] + head.EYE_HALF_WIDTH * jnp.linspace(1.0, -1.0, 9)
    upper, lower = head.lid_curves(pose, x)
    return jnp.concatenate([jnp.stack([x, lower], -1), jnp.stack([x, upper], -1)[::-1][1:-1]])


def _iris(pose, side):
    """Centre and four rim points of an iris [5, 3], sculpt axes."""
    yaw, pitch = head.GAZE_YAW * pose["gaze_x"], head.GAZE_PITCH * pose["gaze_y"]
    ring = jnp.array([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)]) * head.IRIS
    yaw, pitch = yaw + ring[:, 0], pitch + ring[:, 1]
    toward = jnp.stack(
        [jnp.sin(yaw) * jnp.cos(pitch), jnp.sin(pitch), jnp.cos(yaw) * jnp.cos(pitch)], -1
    )
    return (
        jnp.asarray(sculpt.EYEBALL) * jnp.array([side, 1.0, 1.0]) + sculpt.EYEBALL_RADIUS * toward
    )


def project(
    points: jax.Array, world_to_camera: jax.Array | np.ndarray, intrinsics: Sequence[float]
) -> jax.Array:
    """Pixels [..., 2] of head-frame points [..., 3]."""
    fx, fy, cx, cy = intrinsics
    p = points @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]
    return jnp.stack([fx * p[..., 0] / p[..., 2] + cx, fy * p[..., 1] / p[..., 2] + cy], -1)
