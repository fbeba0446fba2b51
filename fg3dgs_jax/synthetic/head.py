"""The embedded subject's moving head surface, as a table of radii that rays are cast on.

Pure functions of one frame's pose. The still head of `sculpt` is read through a warp (jaw, brows),
then lids and lips are added; colours are in `shading`. Sculpt axes (X right, Y up, Z to the viewer)
and face coordinates (a, b) as there. The outlines of lips and lids are functions of the pose:
landmarks come from the same ones.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax.synthetic import sculpt

# Head frame (OpenCV axes) <-> sculpt axes; its own inverse.
TO_SCULPT = np.diag([1.0, -1.0, -1.0]).astype(np.float32)
JAW_DROP = 0.0135  # metres of face coordinate at jaw = 1
STEPS = 22  # of the march; a ray ends within 0.4 mm of the surface
EYE_HALF_WIDTH = 0.0172
GAZE_YAW, GAZE_PITCH = 0.36, 0.26  # radians at gaze 1
IRIS, PUPIL = 0.47, 0.185  # radians on the eyeball

# Scalars: jaw, spread, round, closure, brow_up, brow_in, blink, squint, wide, gaze_x, gaze_y.
Pose = dict[str, jax.Array]


@functools.cache
def still_head() -> dict[str, jax.Array]:
    """The tables of `sculpt.sculpt`, on the device."""
    return {name: jnp.asarray(table) for name, table in sculpt.sculpt().items()}


def step_up(low: float, high: float, x: jax.Array) -> jax.Array:
    """0 below `low`, 1 above `high`, a smooth step between (also falling, where low > high)."""
    t = jnp.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3 - 2 * t)


def bump(
    x: jax.Array, y: float | jax.Array, sx: float | jax.Array, sy: float | jax.Array
) -> jax.Array:
    """A bell of height 1 and deviations (sx, sy), at (x, y) from its middle."""
    return jnp.exp(-0.5 * ((x / sx) ** 2 + (y / sy) ** 2))


def lookup(table: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """Bilinear read of [n, n, ...] at face coordinates a, b [...]."""
    n = table.shape[0]
    x, y = (jnp.clip((c / sculpt.EXTENT + 1) * (0.5 * (n - 1)), 0.0, n - 1.001) for c in (a, b))
    i, j = y.astype(jnp.int32), x.astype(jnp.int32)
    fy, fx = y - i, x - j
    flat, at = table.reshape((n * n,) + table.shape[2:]), i * n + j
    if flat.ndim == 2:
        fy, fx = fy[..., None], fx[..., None]
    top = flat[at] * (1 - fx) + flat[at + 1] * fx
    return top * (1 - fy) + (flat[at + n] * (1 - fx) + flat[at + n + 1] * fx) * fy


def canonical(pose: Pose, a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where on the still head the skin that is now at (a, b) comes from.

    The jaw pulls chin and cheeks down, the brows move.
    """
    x = jnp.abs(a)
    lower = step_up(-0.062, -0.096, b) * step_up(0.125, 0.045, x)
    cheek = 0.30 * bump(x - 0.045, b + 0.060, 0.020, 0.022)
    down = JAW_DROP * pose["jaw"] * jnp.maximum(lower, cheek * (1 - lower) + lower)
    brow = step_up(0.008, 0.020, b) * step_up(0.075, 0.035, b) * step_up(0.085, 0.045, x)
    inner = step_up(0.045, 0.012, x)
    lift = (0.0052 * pose["brow_up"] - 0.0036 * pose["brow_in"] * inner) * brow
    pull = 0.0028 * pose["brow_in"] * bump(x - 0.018, b - 0.02, 0.014, 0.012) * jnp.sign(a)
    wide = (
        0.0040
        * (pose["spread"] - 1.2 * pose["round"])
        * bump(x - 0.030, b + 0.066, 0.012, 0.016)
        * jnp.sign(a)
    )
    return a + pull - wide, b + down - lift


def mouth_shape(pose: Pose) -> tuple[jax.Array, ...]:
    """Sizes of the mouth, metres.

    Returns:
      half widths of the opening and of the lips, rise of the upper and fall of the lower lip, and
      both lips' red thicknesses.
    """
    closed = pose["closure"]
    opening = pose["jaw"] * (1 - closed)
    half = 0.0220 + 0.0042 * pose["spread"] - 0.0092 * pose["round"] - 0.0015 * opening
    rise = 0.0026 * opening + 0.0012 * pose["spread"] * (1 - closed) * step_up(
        0.02, 0.2, pose["jaw"]
    )
    fall = 0.0148 * opening + 0.0008 * pose["round"] * (1 - closed)
    thick = 1 - 0.30 * closed - 0.10 * pose["spread"] + 0.22 * pose["round"] - 0.10 * opening
    return half, half + 0.0038, rise, fall, 0.0066 * thick, 0.0086 * thick


def lip_curves(pose: Pose, a: jax.Array) -> tuple[jax.Array, ...]:
    """The four lip lines at a [...]: outer upper, inner upper, inner lower, outer lower.

    Returns:
      b of each; outside a line's width that of its end.
    """
    inner, outer, rise, fall, red_up, red_low = mouth_shape(pose)
    q, p = jnp.clip(jnp.abs(a) / inner, 0, 1), jnp.clip(jnp.abs(a) / outer, 0, 1)
    smile = 0.0016 * (pose["spread"] - 0.3)
    seam = (
        sculpt.MOUTH_B
        + smile * p * p
        - 0.0007 * bump(a, 0.0, 0.005, 1.0)
        + 0.0006 * bump(jnp.abs(a) - 0.010, 0.0, 0.005, 1.0)
    )
    arch, wide_arch = (1 - q * q) ** 0.75, (1 - p * p) ** 0.85
    top, bottom = seam + rise * arch, seam - fall * arch
    cupid = 1 - 0.22 * bump(a, 0.0, 0.0030, 1.0)
    upper = seam + rise * wide_arch + red_up * (1 - p**1.7) * cupid
    lower = seam - fall * wide_arch - red_low * (1 - p * p) ** 0.62
    return jnp.maximum(upper, top), top, bottom, jnp.minimum(lower, bottom)


def lid_curves(pose: Pose, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Edges of the upper and lower lid: b at x [...] = |a|, for the eyes mirror each other."""
    q = (x - sculpt.EYE[0]) / EYE_HALF_WIDTH
    tilt = sculpt.EYE[1] + 0.0009 * q
    flat = jnp.clip(1 - q * q, 0, 1)
    open_up = 0.0063 + 0.0020 * pose["wide"] - 0.0016 * pose["squint"] + 0.0010 * pose["gaze_y"]
    low = -0.0054 + 0.0014 * pose["squint"] + 0.0008 * pose["blink"]
    shut = low * flat**0.75
    upper = open_up * flat**0.66 * (1 - 0.14 * q)
    upper = upper + (shut - upper) * pose["blink"]
    return tilt + jnp.maximum(upper, shut), tilt + shut


def surface(pose: Pose) -> tuple[jax.Array, jax.Array]:
    """This frame's tables.

    Returns:
      radius [TABLE, TABLE], and [TABLE, TABLE, 5] of normal, occlusion, hair minus skin.
    """
    still = still_head()
    skin, occlusion = _lip_skin(pose, *_lid_skin(pose, still["skin"], still["occlusion"]))
    return _normals(skin, still["hair"], occlusion)


@jax.jit
def _lid_skin(pose, skin, occlusion):
    a, b = (jnp.asarray(g) for g in sculpt.face_grid(sculpt.TABLE))
    d = sculpt.directions(a, b, jnp)
    ca, cb = canonical(pose, a, b)
    skin, occlusion = lookup(skin, ca, cb), lookup(occlusion, ca, cb)
    # lids: the skin lies on the eyeball
    side = jnp.where(a >= 0, 1.0, -1.0)
    ball = jnp.asarray(sculpt.EYEBALL)
    along = d[..., 0] * side * ball[0] + d[..., 1] * ball[1] + d[..., 2] * ball[2]
    inside = (sculpt.EYEBALL_RADIUS + 0.0013) ** 2 - (ball @ ball - along**2)
    lid = jnp.where(inside > 0, along + jnp.sqrt(jnp.maximum(inside, 1e-12)), 0.0)
    skin = 0.5 * (skin + lid + jnp.sqrt((skin - lid) ** 2 + 0.0016**2))
    upper, lower = lid_curves(pose, jnp.abs(a))
    near = step_up(1.25, 0.9, jnp.abs(jnp.abs(a) - sculpt.EYE[0]) / EYE_HALF_WIDTH)
    crease = upper + 0.0042 - 0.0012 * pose["blink"]
    skin += near * (
        -0.0011 * bump(b - crease, 0, 0.0011, 1) + 0.0006 * bump(b - upper - 0.0010, 0, 0.001, 1)
    )
    skin += near * 0.0005 * bump(b - lower + 0.0012, 0, 0.0010, 1)
    return skin, occlusion


@jax.jit
def _lip_skin(pose, skin, occlusion):
    a, b = (jnp.asarray(g) for g in sculpt.face_grid(sculpt.TABLE))
    a, b = a[:1], b[:, :1]  # the curves depend on the column only
    upper, top, bottom, lower = lip_curves(pose, a)
    _, outer, *_ = mouth_shape(pose)
    ends = step_up(1.05, 0.75, jnp.abs(a) / outer)
    up, low = (b - top) / (upper - top + 1e-4), (bottom - b) / (bottom - lower + 1e-4)
    plump = 1 - 0.35 * pose["closure"] + 0.5 * pose["round"]
    skin += ends * plump * (0.0024 * _roll(up) + 0.0032 * _roll(low))
    skin += 0.0050 * pose["round"] * bump(a, b - sculpt.MOUTH_B + 0.004, 0.016, 0.014)
    skin -= ends * 0.0022 * bump(b - 0.5 * (top + bottom), 0, 0.0006 + 0.5 * (top - bottom), 1)
    return skin, occlusion


def _roll(t):
    """The swell of a lip from its inner (0) to its outer edge (1)."""
    return jnp.where((t > 0) & (t < 1), jnp.sin(jnp.pi * jnp.clip(t, 0, 1) ** 0.75), 0.0)


@jax.jit
def _normals(skin, hair, occlusion):
    radius = jnp.maximum(skin, hair)
    a, b = (jnp.asarray(g) for g in sculpt.face_grid(sculpt.TABLE))
    d = sculpt.directions(a, b, jnp)
    point = d * radius[..., None]
    across = jnp.roll(point, -1, 1) - jnp.roll(point, 1, 1)
    up = jnp.roll(point, -1, 0) - jnp.roll(point, 1, 0)
    normal = jnp.cross(across, up)
    normal /= jnp.linalg.norm(normal, axis=-1, keepdims=True) + 1e-12
    return radius, jnp.concatenate([normal, occlusion[..., None], (hair - skin)[..., None]], -1)


def chart(point: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Radius and face coordinates of points [..., 3]."""
    r = jnp.sqrt((point * point).sum(-1))
    scale = sculpt.CHART / jnp.maximum(r + point[..., 2], 1e-4)
    return r, point[..., 0] * scale, point[..., 1] * scale


@jax.jit
def march(radius: jax.Array, origin: jax.Array, rays: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Follows rays to the surface of the radius table.

    Args:
      radius: [TABLE, TABLE].
      origin: [3].
      rays: unit vectors [..., 3].

    Returns:
      the distance [...], and bool [...] where there is a surface.
    """
    near = -(rays @ origin)  # the point of the ray that is nearest to the centre
    reach = jnp.maximum(0.150**2 - ((origin + near[..., None] * rays) ** 2).sum(-1), 0.0)
    start = near - jnp.sqrt(reach)

    def step(_, carry):
        # By the gap while outside, then halving between the last one outside and the first inside.
        t, low, high = carry
        r, a, b = chart(origin + t[..., None] * rays)
        gap = r - lookup(radius, a, b)
        low, high = jnp.where(gap > 0, t, low), jnp.where(gap > 0, high, t)
        ahead = t + jnp.maximum(0.7 * gap, 0.0012)
        return jnp.where((gap > 0) & (ahead < high), ahead, 0.5 * (low + high)), low, high

    far = jnp.full_like(start, 9.0)
    t, _, high = jax.lax.fori_loop(0, STEPS, step, (start, start, far))
    return t, (high < 9.0) & (reach > 0)
