"""Colours and labels of the embedded subject's head: what a ray meets and how it is lit.

Skin, brows, hair and lips lie on the surface of `head`; eyeballs, teeth and tongue are found behind
its openings. Axes and pose as there; 2 x 2 rays a pixel.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax.synthetic import sculpt
from fg3dgs_jax.synthetic.head import (
    EYE_HALF_WIDTH,
    GAZE_PITCH,
    GAZE_YAW,
    IRIS,
    JAW_DROP,
    PUPIL,
    TO_SCULPT,
    Pose,
    bump,
    canonical,
    chart,
    lid_curves,
    lip_curves,
    lookup,
    march,
    mouth_shape,
    step_up,
    still_head,
)

# Towards the key light: camera frame in sculpt axes, so it stays when the head turns.
KEY_LIGHT = np.array([-0.445, 0.552, 0.712]) / np.linalg.norm([-0.445, 0.552, 0.712])
LIPS_RED = (0.43, 0.128, 0.112)
# The teeth's edges with the jaw closed, metres from the lips' seam; joints between upper teeth at
# |X|.
UPPER_EDGE, LOWER_EDGE = -0.0026, -0.0050
TOOTH_JOINTS = (0.0, 0.0086, 0.0152, 0.0222, 0.0290)


def shade(
    albedo: jax.Array,
    normal: jax.Array,
    view: jax.Array,
    light: jax.Array | np.ndarray,
    occlusion: jax.Array,
    gloss: float | jax.Array,
    power: float,
) -> jax.Array:
    """Wrapped key light, sky and bounce, Blinn highlight; linear RGB [..., 3]."""
    lit = (normal * light).sum(-1)
    # Red goes further round, as in skin.
    wrap = jnp.clip((lit[..., None] + jnp.array([0.32, 0.20, 0.16])) / 1.25, 0, 1)
    sky = (0.5 + 0.5 * normal[..., 1])[..., None]
    ambient = jnp.array([0.23, 0.25, 0.29]) * sky + jnp.array([0.15, 0.12, 0.11]) * (1 - sky)
    half = light + view
    half /= jnp.linalg.norm(half, axis=-1, keepdims=True)
    shine = gloss * jnp.clip((normal * half).sum(-1), 0, 1) ** power * (lit > 0)
    o = occlusion[..., None]
    return albedo * (1.02 * wrap * (0.35 + 0.65 * o) + ambient * o) + shine[..., None] * (
        0.4 + 0.6 * o
    )


@jax.jit
def _eyeball(pose, origin, rays, light, a, b, lids):
    """Colour [..., 3] of what lies in the lids' openings."""
    x, side = jnp.abs(a), jnp.where(a >= 0, 1.0, -1.0)
    centre = jnp.asarray(sculpt.EYEBALL) * jnp.stack(
        [side, jnp.ones_like(side), jnp.ones_like(side)], -1
    )
    toward = centre - origin
    along = (toward * rays).sum(-1)
    miss = (toward * toward).sum(-1) - along**2
    t = along - jnp.sqrt(jnp.maximum(sculpt.EYEBALL_RADIUS**2 - miss, 1e-10))
    normal = (origin + t[..., None] * rays - centre) / sculpt.EYEBALL_RADIUS
    yaw, pitch = GAZE_YAW * pose["gaze_x"], GAZE_PITCH * pose["gaze_y"]
    gaze = jnp.stack([jnp.sin(yaw) * jnp.cos(pitch), jnp.sin(pitch), jnp.cos(yaw) * jnp.cos(pitch)])
    off = jnp.arccos(jnp.clip((normal * gaze).sum(-1), -1, 1))
    turn = jnp.arctan2(normal[..., 1] - gaze[1], normal[..., 0] - gaze[0])
    fibres = 0.75 + 0.20 * jnp.sin(turn * 23 + 3 * jnp.sin(turn * 5)) + 0.15 * jnp.sin(turn * 41)
    iris = (
        jnp.array([0.105, 0.175, 0.170]) * fibres[..., None]
        + jnp.array([0.16, 0.09, 0.02]) * bump(off - 0.22, 0, 0.05, 1)[..., None]
    )
    iris *= (1 - 0.8 * step_up(0.38, 0.47, off))[..., None]
    iris = jnp.where((off < PUPIL)[..., None], 0.004, iris)
    corner = step_up(0.70, 1.0, jnp.abs(x - sculpt.EYE[0]) / EYE_HALF_WIDTH)[..., None]
    white = jnp.array([0.70, 0.66, 0.63]) * (1 - corner * jnp.array([0.10, 0.35, 0.35]))
    albedo = white + (iris - white) * step_up(IRIS + 0.03, IRIS - 0.03, off)[..., None]
    upper, lower = lids
    shadow = 0.40 + 0.60 * step_up(-0.0005, 0.0050, upper - b) * (
        0.75 + 0.25 * step_up(0.0, 0.0015, b - lower)
    )
    out = shade(albedo, normal, -rays, light, shadow, 0.0, 10.0)
    cornea = normal + 0.35 * (normal - gaze) * (off < IRIS)[..., None]
    cornea /= jnp.linalg.norm(cornea, axis=-1, keepdims=True)
    half = light - rays
    half /= jnp.linalg.norm(half, axis=-1, keepdims=True)
    return out + (1.6 * step_up(0.984, 0.993, (cornea * half).sum(-1)))[..., None]


@jax.jit
def _mouth_inside(pose, lip, point, rays, light, b, curves):
    """Colour [..., 3] of the mouth behind its opening at `point`, and bool [...] of a tooth."""
    arch = lip[2] - 0.0085
    t = (arch - point[..., 2]) / rays[..., 2]
    for _ in range(3):  # the dental arch bends back: Z = arch - 30 X^2
        t = (arch - 30 * (point + t[..., None] * rays)[..., 0] ** 2 - point[..., 2]) / rays[..., 2]
    hit = point + t[..., None] * rays
    x, y = jnp.abs(hit[..., 0]), hit[..., 1] - lip[1]
    joint = jnp.abs(x[..., None] - jnp.array(TOOTH_JOINTS)).min(-1)
    small = jnp.abs(x[..., None] - 0.0058 * jnp.arange(5)).min(-1)
    scallop = 0.0007 * jnp.exp(-joint / 0.0007)
    drop = 0.92 * JAW_DROP * pose["jaw"]
    upper = (y > UPPER_EDGE + scallop + 6 * x * x) & (y < 0.012)
    low_edge = LOWER_EDGE - drop - 0.0006 * jnp.exp(-small / 0.0006)
    lower = (y < low_edge) & (y > low_edge - 0.012) & (x < 0.022)
    teeth = (upper | lower) & (x < 0.029)
    gum = (upper & (y > 0.0075 - 0.002 * step_up(0, 0.002, joint))) | (
        lower & (y < low_edge - 0.0075)
    )
    gap = jnp.where(upper, joint, small)
    enamel = jnp.array([0.72, 0.66, 0.55]) * (0.62 + 0.38 * step_up(0.0001, 0.0011, gap))[..., None]
    normal = jnp.stack([60 * hit[..., 0], 0.15 + 0 * x, jnp.ones_like(x)], -1)
    normal /= jnp.linalg.norm(normal, axis=-1, keepdims=True)
    depth = (
        step_up(0.026, 0.006, x)
        * jnp.where(upper, 1.0, 0.72)
        * (0.6 + 0.4 * step_up(0.0, 0.25, pose["jaw"]))
    )
    tooth = shade(
        jnp.where(gum[..., None], jnp.array([0.42, 0.15, 0.14]), enamel),
        normal,
        -rays,
        light,
        0.62 * depth,
        0.12,
        40.0,
    )
    # tongue: an ellipsoid behind the lower teeth; the rest is dark
    size = jnp.array([0.021, 0.0085, 0.026])
    centre = jnp.stack([jnp.float32(0.0), lip[1] - 0.0115 - 0.62 * drop, lip[2] - 0.037])
    o, v = (point - centre) / size, rays / size
    bq, aq = (o * v).sum(-1), (v * v).sum(-1)
    disc = bq**2 - aq * ((o * o).sum(-1) - 1)
    p = o + ((-bq - jnp.sqrt(jnp.maximum(disc, 0))) / aq)[..., None] * v
    normal = p / size
    normal /= jnp.linalg.norm(normal, axis=-1, keepdims=True)
    groove = 1 - 0.3 * bump(p[..., 0], 0, 0.08, 1)
    tongue = shade(
        jnp.array([0.46, 0.15, 0.14]) * groove[..., None],
        normal,
        -rays,
        light,
        0.42 * (0.35 + 0.65 * step_up(-0.3, 0.9, p[..., 2])),
        0.05,
        20.0,
    )
    dark = jnp.array([0.040, 0.010, 0.009]) * (1 + 0 * x)[..., None]
    inside = jnp.where((disc > 0)[..., None], tongue, dark)
    visible = teeth & (t > 0)
    lips_shadow = 0.45 + 0.55 * step_up(0.0, 0.004, curves[1] - b)
    return jnp.where(visible[..., None], tooth, inside) * lips_shadow[..., None], visible & ~gum


@jax.jit
def _rays(world_to_camera, intrinsics, rows, cols):
    """Ray origin [3], unit rays [..., 3] and the light's direction [3], sculpt axes."""
    fx, fy, cx, cy = intrinsics
    view = jnp.stack([(cols - cx) / fx, (rows - cy) / fy, jnp.ones_like(rows)], -1)
    rotation = world_to_camera[:3, :3] @ TO_SCULPT  # sculpt -> camera
    rays = view @ rotation
    rays /= jnp.linalg.norm(rays, axis=-1, keepdims=True)
    return -rotation.T @ world_to_camera[:3, 3], rays, (TO_SCULPT @ KEY_LIGHT) @ rotation


class Hit(NamedTuple):
    """Where rays end on the head, and what its tables hold there."""

    point: jax.Array  # [..., 3]
    a: jax.Array  # [...], face coordinates
    b: jax.Array
    surface: jax.Array  # [..., 5]: normal, occlusion, hair minus skin
    texture: jax.Array  # [..., 4]: albedo of the skin, brow
    tone: jax.Array  # [...], of the hair


@jax.jit
def _meet(pose, still, table, origin, rays, t):
    """The `Hit` of rays that end at distance t."""
    point = origin + t[..., None] * rays
    _, a, b = chart(point)
    texture = lookup(still["albedo"], *canonical(pose, a, b))
    return Hit(point, a, b, lookup(table, a, b), texture, lookup(still["hair_tone"], a, b))


def cast(
    pose: Pose,
    tables: tuple[jax.Array, jax.Array],
    world_to_camera: jax.Array | np.ndarray,
    intrinsics: Sequence[float],
    rows: jax.Array,
    cols: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Colours and labels of rays through (cols, rows) px.

    A chain of compiled stages rather than one: fused into one, XLA works the curves out again for
    each of their uses.

    Returns:
      display RGB [..., 3] in [0, 1] and label [...], 0 where there is no head.
    """
    radius, table = tables
    origin, rays, light = _rays(world_to_camera, intrinsics, rows, cols)
    t, hit = march(radius, origin, rays)
    where = _meet(pose, still_head(), table, origin, rays, t)
    curves, lids = _curves(pose, where.a)
    ball = _eyeball(pose, origin, rays, light, where.a, where.b, lids)
    inside = _mouth_inside(pose, mouth_lip(), where.point, rays, light, where.b, curves)
    return _paint(pose, rays, light, hit, where, (curves, lids), (ball, inside))


@functools.cache
def mouth_lip() -> jax.Array:
    """The point [3] of the still head where the lips meet, sculpt axes."""
    zero, b = jnp.float32(0.0), jnp.float32(sculpt.MOUTH_B)
    return sculpt.directions(zero, b, jnp) * lookup(still_head()["skin"], zero, b)


@jax.jit
def _curves(pose, a):
    return lip_curves(pose, a), lid_curves(pose, jnp.abs(a))


@jax.jit
def _paint(pose, rays, light, head, where, outlines, openings):
    """Chooses and shades the material of each ray; see `cast`."""
    (curves, lids), (ball, (inside, tooth)) = outlines, openings
    a, b, surface, tone = where.a, where.b, where.surface, where.tone
    x = jnp.abs(a)
    normal = surface[..., :3] / (jnp.linalg.norm(surface[..., :3], axis=-1, keepdims=True) + 1e-9)
    occlusion, hair = surface[..., 3], surface[..., 4] > 0
    albedo, brow = where.texture[..., :3], where.texture[..., 3]
    upper, top, bottom, lower = curves
    inner, outer, *_ = mouth_shape(pose)
    hole = (x < inner) & (b < top) & (b > bottom)
    lips = (x < outer) & (b < upper) & (b > lower) & ~hole
    edge = jnp.minimum(upper - b, b - lower)
    red = jnp.where(lips, step_up(-0.0002, 0.0014, edge), 0.0)[..., None]
    seam = bump(jnp.where(b > 0.5 * (top + bottom), b - top, bottom - b), 0, 0.0007, 1) * (
        x < outer
    )
    wrinkle = 1 + 0.06 * jnp.sin(a * 2600 + 2 * jnp.sin(a * 700))
    albedo = albedo + (jnp.array(LIPS_RED) * wrinkle[..., None] - albedo) * (0.88 * red)
    albedo *= 1 - 0.62 * jnp.where(lips, seam, 0.0)[..., None]

    lid_up, lid_low = lids
    eye = (b < lid_up) & (b > lid_low) & (jnp.abs(x - sculpt.EYE[0]) < EYE_HALF_WIDTH)
    around = step_up(1.0, 0.88, jnp.abs(x - sculpt.EYE[0]) / EYE_HALF_WIDTH)
    lash = 0.9 * step_up(0.0024, 0.0007, b - lid_up) * (b >= lid_up) + 0.35 * step_up(
        0.0010, 0.0002, lid_low - b
    ) * (b <= lid_low)
    albedo *= 1 - (around * jnp.where(eye, 0.0, lash))[..., None]
    albedo *= 1 - 0.22 * (around * bump(b - lid_up - 0.0042, 0, 0.0009, 1))[..., None]

    gloss = 0.055 + 0.06 * red[..., 0] + 0.05 * bump(a, b + 0.02, 0.012, 0.03)
    colour = shade(albedo, normal, -rays, light, occlusion, gloss * (1 - brow), 22.0)
    strand = jnp.array([0.060, 0.031, 0.018]) * tone[..., None]
    sheen = 0.05 * tone * bump(normal[..., 1] - 0.62, 0, 0.16, 1)
    colour = jnp.where(
        hair[..., None], shade(strand, normal, -rays, light, occlusion, sheen, 6.0), colour
    )
    colour = jnp.where(eye[..., None], ball, colour)
    colour = jnp.where(hole[..., None], inside, colour)

    left = a > 0  # the person's left is the image's right
    on_nose = (
        (
            x
            < jnp.interp(
                b,
                jnp.array([-0.044, -0.036, -0.012, 0.010]),
                jnp.array([0.010, 0.0175, 0.010, 0.006]),
            )
        )
        & (b > -0.044)
        & (b < 0.010)
    )
    shape, _ = sculpt_ear(a, b)
    label = jnp.where(on_nose, 10, 1)
    label = jnp.where((shape > 0.3) & (x > 0.17), jnp.where(left, 7, 8), label)
    label = jnp.where(brow > 0.45, jnp.where(left, 2, 3), label)
    label = jnp.where(lips, jnp.where(b > 0.5 * (top + bottom), 12, 13), label)
    label = jnp.where(hair, 17, label)
    label = jnp.where(eye, jnp.where(left, 4, 5), label)
    label = jnp.where(hole, jnp.where(tooth, 19, 11), label)
    return display(colour), jnp.where(head, label, 0)


def sculpt_ear(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`sculpt.ear` for jnp arrays."""
    x, y = (jnp.abs(a) - 0.222) / 0.034, (b + 0.012) / 0.078
    s = jnp.sqrt((x - 0.25 * y) ** 2 + y * y)
    return step_up(1.05, 0.80, s), s


def display(linear: jax.Array) -> jax.Array:
    """Linear light -> display RGB in [0, 1] with a soft shoulder."""
    return jnp.clip((linear * (1 + 0.08 * linear)) / (1 + 0.22 * linear), 0, 1) ** (1 / 2.2)


def draw(
    pose: Pose,
    tables: tuple[jax.Array, jax.Array],
    world_to_camera: jax.Array | np.ndarray,
    intrinsics: Sequence[float],
    window: tuple[int, int, int, int],
) -> tuple[jax.Array, jax.Array]:
    """Draws one antialiased frame of the head, 2 x 2 rays a pixel.

    Args:
      pose: see `head.Pose`.
      tables: `head.surface(pose)`.
      world_to_camera: [4, 4].
      intrinsics: (fx, fy, cx, cy) px.
      window: (row0, row1, col0, col1), where a head can be; static.

    Returns:
      premultiplied display RGBA [h, w, 4] in [0, 1] and label [h, w] uint8 (0 where the head covers
      less than half).
    """
    row0, row1, col0, col1 = window
    sub = jnp.array([0.25, 0.75])
    rows = (jnp.arange(row0, row1)[:, None] + sub).reshape(-1)
    cols = (jnp.arange(col0, col1)[:, None] + sub).reshape(-1)
    rows, cols = jnp.broadcast_arrays(rows[:, None], cols[None, :])
    colour, label = cast(pose, tables, world_to_camera, intrinsics, rows, cols)
    return _resolve(colour, label)


@jax.jit
def _resolve(colour, label):
    """2 x 2 samples -> premultiplied RGBA and the label of most samples."""
    h, w = label.shape[0] // 2, label.shape[1] // 2
    rgba = jnp.concatenate([colour, jnp.ones_like(colour[..., :1])], -1) * (label > 0)[..., None]
    rgba = rgba.reshape(h, 2, w, 2, 4).mean((1, 3))
    votes = label.reshape(h, 2, w, 2).transpose(0, 2, 1, 3).reshape(h, w, 4)
    count = (votes[..., :, None] == votes[..., None, :]).sum(-1)
    winner = jnp.take_along_axis(votes, count.argmax(-1)[..., None], -1)[..., 0]
    return rgba, winner.astype(jnp.uint8)
