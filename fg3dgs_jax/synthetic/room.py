"""What is behind the embedded subject's head.

Neck and clothed torso as a layer of their own, and a room out of focus.
"""

import functools
from collections.abc import Sequence

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax.synthetic.head import TO_SCULPT, bump, step_up
from fg3dgs_jax.synthetic.shading import KEY_LIGHT, display, shade

# Half width and front depth of neck and shoulders at each height (sculpt axes, metres).
HEIGHTS = (-0.240, -0.215, -0.200, -0.186, -0.174, -0.163, -0.152, -0.138, -0.110, -0.040)
WIDTHS = (0.215, 0.196, 0.176, 0.146, 0.108, 0.076, 0.061, 0.0535, 0.0505, 0.0500)
DEPTHS = (0.088, 0.080, 0.072, 0.064, 0.058, 0.053, 0.048, 0.044, 0.040, 0.036)
TOP = -0.045  # the neck ends here, well behind the chin


def torso_depth(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Z of the front of neck and torso at (x, y).

    Returns:
      Z, and |x| in half widths: below 1 inside the outline.
    """
    heights = jnp.array(HEIGHTS)
    width = jnp.interp(y, heights, jnp.array(WIDTHS))
    q = jnp.clip(jnp.abs(x) / width, 0, 1)
    z = (jnp.interp(y, heights, jnp.array(DEPTHS)) + 0.02) * (1 - q**2.6) ** 0.5 - 0.02
    cords = (
        0.0030
        * bump(jnp.abs(x) - 0.010 - 0.22 * (y + 0.175), 0, 0.006, 1)
        * step_up(-0.185, -0.165, y)
        * step_up(-0.10, -0.13, y)
    )
    return z + cords, jnp.abs(x) / width


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def draw_torso(
    torso_to_camera: jax.Array | np.ndarray,
    intrinsics: Sequence[float],
    height: int,
    width: int,
    first_row: int,
) -> tuple[jax.Array, jax.Array]:
    """Draws one antialiased frame of neck and torso, with nothing hidden by the head.

    Args:
      torso_to_camera: [4, 4].
      intrinsics: (fx, fy, cx, cy) px.
      height: px.
      width: px.
      first_row: no ray is cast above it: the neck ends below.

    Returns:
      straight-alpha display RGBA [H, W, 4] in [0, 1] and label [H, W] uint8 (14 neck, 16 cloth, 0
      elsewhere), from 2 x 2 rays a pixel.
    """
    fx, fy, cx, cy = intrinsics
    sub = jnp.array([0.25, 0.75])
    rows = (jnp.arange(first_row, height)[:, None] + sub).reshape(-1)
    cols = (jnp.arange(width)[:, None] + sub).reshape(-1)
    rows, cols = jnp.broadcast_arrays(rows[:, None], cols[None, :])
    rotation = torso_to_camera[:3, :3] @ TO_SCULPT
    origin = -rotation.T @ torso_to_camera[:3, 3]
    rays = jnp.stack([(cols - cx) / fx, (rows - cy) / fy, jnp.ones_like(rows)], -1) @ rotation
    rays /= jnp.linalg.norm(rays, axis=-1, keepdims=True)

    def reach(depth):
        return origin + ((depth - origin[2]) / rays[..., 2])[..., None] * rays

    point = reach(jnp.full_like(rows, 0.05))
    for _ in range(2):  # the surface is shallow: few corrections of the depth suffice
        point = reach(torso_depth(point[..., 0], point[..., 1])[0])
    x, y = point[..., 0], point[..., 1]
    _z, inside = torso_depth(x, y)
    slope_x = (torso_depth(x + 8e-4, y)[0] - torso_depth(x - 8e-4, y)[0]) / 1.6e-3
    slope_y = (torso_depth(x, y + 8e-4)[0] - torso_depth(x, y - 8e-4)[0]) / 1.6e-3
    normal = jnp.stack([-slope_x, -slope_y, jnp.ones_like(x)], -1)
    normal /= jnp.linalg.norm(normal, axis=-1, keepdims=True)

    collar = (
        -0.160
        - 0.026 * jnp.clip(1 - (x / 0.066) ** 2, 0, 1) ** 0.8
        + 0.06 * jnp.clip(jnp.abs(x) - 0.066, 0, 1)
    )
    below = collar - y
    cloth = below > 0
    skin = (
        jnp.array([0.60, 0.320, 0.212]) * (1 - 0.10 * bump(x, y + 0.135, 0.008, 0.012))[..., None]
    )
    rib = (
        1
        + 0.10 * jnp.sin(x * 2100) * (below < 0.011)
        + 0.07 * jnp.sin(x * 1500 + y * 240) * (below > 0.011)
    )
    knit = (
        jnp.array([0.030, 0.066, 0.110])
        * rib[..., None]
        * (1 - 0.35 * bump(below - 0.0115, 0, 0.0010, 1))[..., None]
    )
    chin = 1 - 0.66 * step_up(-0.166, -0.108, y) * step_up(0.13, 0.02, jnp.abs(x))
    hem = 1 - 0.35 * bump(jnp.where(cloth, 9.0, -below), 0, 0.0025, 1)
    shadow = jnp.where(cloth, 0.80 + 0.20 * step_up(0, 0.02, below), chin * hem)
    light = (TO_SCULPT @ KEY_LIGHT) @ rotation
    colour = shade(
        jnp.where(cloth[..., None], knit, skin),
        normal,
        -rays,
        light,
        shadow,
        jnp.where(cloth, 0.01, 0.03),
        14.0,
    )
    cover = (inside < 1) & (y < TOP) & (point[..., 2] > -0.5)
    h, w = height - first_row, width
    alpha = cover.astype(jnp.float32)
    rgba = (
        jnp.concatenate([display(colour) * alpha[..., None], alpha[..., None]], -1)
        .reshape(h, 2, w, 2, 4)
        .mean((1, 3))
    )
    colour = rgba[..., :3] / jnp.maximum(rgba[..., 3:], 1e-6)
    share = (cover & cloth).reshape(h, 2, w, 2).mean((1, 3))
    label = jnp.where(share >= 0.5 * rgba[..., 3], 16, 14) * (rgba[..., 3] >= 0.5)
    above = ((first_row, 0), (0, 0))
    return jnp.pad(jnp.concatenate([colour, rgba[..., 3:]], -1), (*above, (0, 0))), jnp.pad(
        label.astype(jnp.uint8), above
    )


def room(size: int) -> np.ndarray:
    """The static plate: a wall with a window, a shelf of books and a plant, out of focus.

    Args:
      size: px, of the square.

    Returns:
      uint8 [size, size, 3].
    """
    rng = np.random.default_rng(11)
    n = 512
    y, x = np.mgrid[0:n, 0:n].astype(np.float32) / n
    plate = (
        np.stack([0.62 - 0.16 * x, 0.60 - 0.17 * x, 0.55 - 0.16 * x], -1)
        * (1.04 - 0.22 * y)[..., None]
    )

    def box(x0, y0, x1, y1, colour):
        plate[int(y0 * n) : int(y1 * n), int(x0 * n) : int(x1 * n)] = colour

    box(0.00, 0.02, 0.27, 0.56, (0.30, 0.25, 0.20))  # the window's frame, panes and sill
    for x0, x1 in ((0.0, 0.12), (0.14, 0.255)):
        for y0, y1 in ((0.0, 0.27), (0.29, 0.54)):
            box(x0, y0, x1, y1, (0.86, 0.93, 0.98) if y0 < 0.2 else (0.70, 0.80, 0.74))
    box(0.00, 0.56, 0.30, 0.60, (0.80, 0.77, 0.70))
    for row, top in enumerate((0.08, 0.34, 0.60)):
        box(0.72, top + 0.20, 1.0, top + 0.22, (0.36, 0.24, 0.15))
        at = 0.725
        while at < 0.99:
            wide, tall = rng.uniform(0.014, 0.034), rng.uniform(0.12, 0.185)
            box(
                at,
                top + 0.20 - tall,
                min(at + wide, 1.0),
                top + 0.20,
                rng.uniform(0.12, 0.62, 3) * (1.0, 0.85, 0.75),
            )
            at += wide + (rng.uniform(0.02, 0.05) if rng.random() < 0.15 + 0.1 * row else 0.002)
    for _ in range(46):  # leaves on the sill
        angle, far = rng.uniform(-2.6, -0.5), rng.uniform(0.02, 0.14)
        middle = (
            int((0.12 + far * np.cos(angle)) * n),
            int((0.56 + far * np.sin(angle) * 1.2) * n),
        )
        green = (rng.uniform(0.10, 0.22), rng.uniform(0.26, 0.44), rng.uniform(0.10, 0.18))
        cv2.ellipse(
            plate,
            middle,
            (int(0.026 * n), int(0.008 * n)),
            np.degrees(angle),
            0,
            360,
            green,
            -1,
            cv2.LINE_AA,
        )
    plate = cv2.GaussianBlur(plate.astype(np.float32), (0, 0), 0.011 * n)
    plate *= (1 - 0.25 * ((x - 0.5) ** 2 + (y - 0.5) ** 2))[..., None]
    plate = cv2.resize(plate, (size, size), interpolation=cv2.INTER_AREA)
    return np.rint(plate.clip(0, 1) * 255).astype(np.uint8)
