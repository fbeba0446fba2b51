"""The rasterizer's definition: plain jnp, differentiated by JAX. The kernels must agree with it.

Projection is the EWA splat of 3D Gaussian splatting (eqs. 2-3), blending is front-to-back alpha
compositing (eq. 4). The image is dense, [pixels x N] in chunks of pixels. Up to about 4,000
Gaussians are practical.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from fg3dgs_jax.geometry import quat_to_rotmat
from fg3dgs_jax.rasterizer.types import (
    Projection,
    RasterAux,
    RenderOutput,
    check_camera,
    check_gaussians,
    check_rasterize,
    check_size,
    leading_shape,
)
from fg3dgs_jax.types import Array, Camera

# The kernels' copies of these live in native/core/constants.h. A test compares the two.
ALPHA_MAX = 0.99  # above it alpha is clamped, and its gradient gated
ALPHA_MIN = 1.0 / 255.0  # below it a Gaussian leaves no trace in a pixel
TRANSMITTANCE_MIN = 1e-4  # a pixel stops before the Gaussian that would take it below this
LOW_PASS = 0.3  # px^2 on the 2D covariance's diagonal
NEAR = 0.2  # metres
FAR = 1e10
FRUSTUM_MARGIN = 0.3  # in tan(fov / 2): how far past the border the Jacobian follows the centre
COMPENSATION_MIN = 0.005  # antialiasing never dims more than this
TILE_SIZE = 16  # px

_CHUNK_ELEMENTS = 1 << 19  # pixels x Gaussians held at once: 2 MB an array
_LARGEST_RADIUS = 2.0**30  # px: a splat can be wider than an int32 holds


class _View(NamedTuple):
    """A camera and what it draws on."""

    world_to_camera: Array  # [..., 4, 4]
    intrinsics: tuple[Array, ...]  # fx, fy, cx, cy, each [..., 1]: to broadcast with N
    width: int  # px
    height: int  # px
    eps2d: float  # px^2


class _Splats(NamedTuple):
    """What `_splat` makes of Gaussians."""

    means2d: Array  # [..., N, 2] px
    depths: Array  # [..., N] metres
    conics: Array  # [..., N, 3] 1/px^2
    determinant: Array  # [..., N] of the 2D covariance, px^4
    ratio: Array  # [..., N] determinant before the low-pass over that after it
    squared_norm: Array  # [..., N] of the quaternion


def project(
    means: Float[Array, "*#batch n 3"],
    quats: Float[Array, "*#batch n 4"],
    scales: Float[Array, "*#batch n 3"],
    opacities: Float[Array, "*#batch n"],
    camera: Camera,
    *,
    width: int,
    height: int,
    eps2d: float = LOW_PASS,
    near: float = NEAR,
    far: float = FAR,
    antialiased: bool = False,
) -> Projection:
    """Gaussians as a camera sees them. The arguments are those of `rasterizer.project`.

    Culled, with radii 0, are Gaussians outside [near, far], off the picture, too faint to leave a
    trace, with NaN or infinite parameters, or with a zero quaternion. Opacities only decide the
    radii, without gradient.

    Raises:
      ValueError: arguments that do not fit together.
    """
    check_gaussians(means, quats, scales, opacities)
    check_camera(camera)
    check_size(width, height)
    batch = leading_shape(
        means.shape[:-2],
        quats.shape[:-2],
        scales.shape[:-2],
        opacities.shape[:-1],
        camera.world_to_camera.shape[:-2],
        *(jnp.shape(value) for value in camera[1:]),
    )
    count = means.shape[-2]
    means, quats, scales = (
        jnp.broadcast_to(x, (*batch, count, x.shape[-1])) for x in (means, quats, scales)
    )
    opacities = jnp.broadcast_to(opacities, (*batch, count))
    # Each with a last dimension of 1, to broadcast with N.
    intrinsics = tuple(jnp.asarray(value, means.dtype)[..., None] for value in camera[1:])
    view = _View(camera.world_to_camera, intrinsics, width, height, eps2d)

    # Two passes: the first finds which Gaussians are sound, the second sees harmless values in
    # place of the others, so that neither their numbers nor their gradients (0 * inf) reach a sum.
    everyone = jnp.ones((*batch, count), bool)
    trial = jax.lax.stop_gradient(_splat(means, quats, scales, view, everyone))
    sound = (
        jnp.isfinite(opacities)
        & (trial.squared_norm > 0.0)
        & (trial.depths >= near)
        & (trial.depths <= far)
        & (trial.determinant > 0.0)
    )
    for values in (means, quats, scales, trial.means2d, trial.conics):
        sound &= jnp.all(jnp.isfinite(values), axis=-1)
    sound &= jnp.isfinite(trial.determinant) & jnp.isfinite(trial.squared_norm)
    sound &= trial.ratio >= 0.0

    splats = _splat(means, quats, scales, view, sound)
    means2d, depths, conics = splats.means2d, splats.depths, splats.conics
    compensations = _compensation(splats.ratio) if antialiased else jnp.ones_like(depths)

    half_x, half_y = _half_extents(
        jax.lax.stop_gradient(conics), jax.lax.stop_gradient(opacities * compensations), sound
    )
    rx, ry = jnp.ceil(half_x), jnp.ceil(half_y)
    u, v = means2d[..., 0], means2d[..., 1]
    visible = (
        sound
        & (rx > 0)
        & (ry > 0)
        & (u + rx > 0)
        & (u - rx < width)
        & (v + ry > 0)
        & (v - ry < height)
    )
    radii = jnp.stack([rx, ry], axis=-1)
    keep = visible[..., None]
    return Projection(
        means2d=jnp.where(keep, means2d, 0.0),
        depths=jnp.where(visible, depths, 0.0),
        conics=jnp.where(keep, conics, 0.0),
        radii=jnp.where(keep, jnp.minimum(radii, _LARGEST_RADIUS), 0.0).astype(jnp.int32),
        compensations=jnp.where(visible, compensations, 0.0),
    )


def rasterize(
    projection: Projection,
    colors: Float[Array, "*#batch n d"],
    opacities: Float[Array, "*#batch n"],
    *,
    width: int,
    height: int,
    background: Float[Array, "*#batch d"] | None = None,
    isect_capacity: int | None = None,
) -> RenderOutput:
    """Blends splats front to back. The arguments are those of `rasterizer.rasterize`.

    `isect_capacity` is the kernels' static list length. Nothing overflows here.

    Raises:
      ValueError: arguments that do not fit together.
    """
    check_rasterize(projection, colors, opacities, background)
    check_size(width, height)
    if background is None:
        background = jnp.zeros((colors.shape[-1],), colors.dtype)

    blend: Callable[..., tuple[Array, Array, Array]] = jnp.vectorize(
        functools.partial(_blend, width, height),
        signature="(n,p),(n),(n,q),(n,p),(n,d),(n),(d)->(h,w,d),(h,w),()",
    )
    image, alpha, n_isects = blend(
        projection.means2d,
        projection.depths,
        projection.conics,
        projection.radii,
        colors,
        opacities,
        background,
    )
    return RenderOutput(
        image, alpha, None, RasterAux(projection.radii, n_isects, jnp.zeros(n_isects.shape, bool))
    )


def _splat(means: Array, quats: Array, scales: Array, view: _View, sound: Array) -> _Splats:
    """EWA splats (eqs. 2, 3). Where not `sound`, of a harmless Gaussian in front of the camera."""
    world_to_camera, (fx, fy, cx, cy), width, height, eps2d = view
    keep = sound[..., None]
    rotation, translation = world_to_camera[..., :3, :3], world_to_camera[..., :3, 3]
    means = jnp.where(keep, means, 0.0)
    points = (
        jnp.sum(rotation[..., None, :, :] * means[..., None, :], axis=-1)
        + translation[..., None, :]
    )
    points = jnp.where(keep, points, jnp.array([0.0, 0.0, 1.0], points.dtype))
    x, y, z = points[..., 0], points[..., 1], points[..., 2]

    quats = jnp.where(keep, quats, jnp.array([1.0, 0.0, 0.0, 0.0], quats.dtype))
    squared_norm = jnp.sum(quats * quats, axis=-1)
    scales = jnp.where(keep, scales, 1e-3)
    factor = quat_to_rotmat(quats) * scales[..., None, :]  # M of Sigma = M M^T, eq. (2)

    # The Jacobian of the pinhole at the centre. Outside the picture plus a margin it stops
    # following the centre, or a Gaussian beside the camera would cover everything.
    tan_x, tan_y = 0.5 * width / fx, 0.5 * height / fy
    slope_x = jnp.clip(
        x / z, -(cx / fx + FRUSTUM_MARGIN * tan_x), (width - cx) / fx + FRUSTUM_MARGIN * tan_x
    )
    slope_y = jnp.clip(
        y / z, -(cy / fy + FRUSTUM_MARGIN * tan_y), (height - cy) / fy + FRUSTUM_MARGIN * tan_y
    )
    row_x = (fx / z)[..., None] * (
        rotation[..., None, 0, :] - slope_x[..., None] * rotation[..., None, 2, :]
    )
    row_y = (fy / z)[..., None] * (
        rotation[..., None, 1, :] - slope_y[..., None] * rotation[..., None, 2, :]
    )
    # Rows of J W M, so Sigma2 = (J W M)(J W M)^T, eq. (3).
    spread_x = jnp.sum(row_x[..., :, None] * factor, axis=-2)
    spread_y = jnp.sum(row_y[..., :, None] * factor, axis=-2)
    sharp_a = jnp.sum(spread_x * spread_x, axis=-1)
    sharp_c = jnp.sum(spread_y * spread_y, axis=-1)
    b = jnp.sum(spread_x * spread_y, axis=-1)
    a, c = sharp_a + eps2d, sharp_c + eps2d
    determinant = a * c - b * b
    safe = jnp.where(determinant > 0.0, determinant, 1.0)
    conics = jnp.stack([c / safe, -b / safe, a / safe], axis=-1)
    ratio = jnp.maximum(sharp_a * sharp_c - b * b, 0.0) / safe
    means2d = jnp.stack([fx * x / z + cx, fy * y / z + cy], axis=-1)
    return _Splats(means2d, z, conics, determinant, ratio, squared_norm)


def _compensation(ratio: Array) -> Array:
    """Takes back the brightness that the low-pass adds. Floored, with no gradient there."""
    floor = COMPENSATION_MIN**2
    return jnp.sqrt(jnp.where(ratio > floor, ratio, floor))


def _half_extents(conics: Array, opacities: Array, sound: Array) -> tuple[Array, Array]:
    """Half width and height, px, of the box around the ellipse alpha >= 1/255. 0 if not visible."""
    a, b, c = conics[..., 0], conics[..., 1], conics[..., 2]
    determinant = a * c - b * b
    brightness = jnp.where(opacities > ALPHA_MIN, opacities / ALPHA_MIN, 1.0)
    reach = 2.0 * jnp.log(brightness)  # squared distance, in sigmas, at which alpha = 1/255
    sound = sound & (determinant > 0.0)
    safe = jnp.where(sound, determinant, 1.0)
    half_x = jnp.where(sound, jnp.sqrt(reach * jnp.where(sound, c / safe, 0.0)), 0.0)
    half_y = jnp.where(sound, jnp.sqrt(reach * jnp.where(sound, a / safe, 0.0)), 0.0)
    return half_x, half_y


# The size comes first, for partial. The rest are the operands of jnp.vectorize.
def _blend(
    width: int,
    height: int,
    means2d: Array,
    depths: Array,
    conics: Array,
    radii: Array,
    colors: Array,
    opacities: Array,
    background: Array,
) -> tuple[Array, Array, Array]:
    """One picture: image [H, W, D], alpha [H, W], the count of (tile, Gaussian) pairs."""
    finite = jnp.isfinite(depths) & jnp.isfinite(opacities)
    for values in (means2d, conics, colors):
        finite &= jnp.all(jnp.isfinite(values), axis=-1)
    visible = finite & jnp.all(radii > 0, axis=-1) & (opacities > ALPHA_MIN)
    keep = visible[:, None]
    means2d, conics, colors = (jnp.where(keep, x, 0.0) for x in (means2d, conics, colors))
    opacities = jnp.where(visible, opacities, 0.0)
    half = _half_extents(*jax.lax.stop_gradient((conics, opacities)), visible)
    n_isects = _count_isects(jax.lax.stop_gradient(means2d), half, visible, (width, height))

    order = jnp.argsort(jnp.where(visible, depths, jnp.inf), stable=True)  # ties by index
    means2d, conics, colors, opacities = (x[order] for x in (means2d, conics, colors, opacities))

    # Recomputed in the backward pass: all chunks' [pixels x N] intermediates would not fit.
    @jax.checkpoint
    def blend_chunk(pixels: Array) -> tuple[Array, Array]:
        weights = _weights(pixels, means2d, conics, opacities)
        return jnp.matmul(weights, colors, precision="highest"), jnp.sum(weights, axis=1)

    n_pixels, n_gaussians = width * height, means2d.shape[0]
    chunk = min(n_pixels, max(64, _CHUNK_ELEMENTS // max(n_gaussians, 1)))
    n_chunks = -(-n_pixels // chunk)
    # The tail repeats the last pixel.
    index = jnp.minimum(jnp.arange(n_chunks * chunk), n_pixels - 1)
    pixels = jnp.stack([index % width, index // width], axis=-1).astype(means2d.dtype) + 0.5
    chunks: tuple[Array, Array] = jax.lax.map(blend_chunk, pixels.reshape(n_chunks, chunk, 2))
    image, alpha = chunks
    image = image.reshape(n_chunks * chunk, -1)[:n_pixels].reshape(height, width, -1)
    alpha = alpha.reshape(-1)[:n_pixels].reshape(height, width)
    return image + (1.0 - alpha)[..., None] * background, alpha, n_isects


def _weights(pixels: Array, means2d: Array, conics: Array, opacities: Array) -> Array:
    """Blending weights [P, N] of depth-sorted Gaussians in pixels [P, 2], eq. (4)."""
    dx = means2d[None, :, 0] - pixels[:, None, 0]
    dy = means2d[None, :, 1] - pixels[:, None, 1]
    a, b, c = conics[:, 0], conics[:, 1], conics[:, 2]
    power = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    alpha = opacities * jnp.exp(-jnp.maximum(power, 0.0))
    alpha = jnp.where(alpha > ALPHA_MAX, ALPHA_MAX, alpha)
    alpha = jnp.where((alpha >= ALPHA_MIN) & (power >= 0.0), alpha, 0.0)
    after = jnp.cumprod(1.0 - alpha, axis=1)  # transmittance behind each, were there no stop
    # `after` falls along a row: once below, below for good.
    alpha = jnp.where(after >= TRANSMITTANCE_MIN, alpha, 0.0)
    before = jnp.concatenate([jnp.ones_like(after[:, :1]), after[:, :-1]], axis=1)
    return alpha * before[:, : after.shape[1]]


def _count_isects(
    means2d: Array, half: tuple[Array, Array], visible: Array, size: tuple[int, int]
) -> Array:
    """How many (tile, Gaussian) pairs have a pixel centre of the tile in the Gaussian's box."""
    spans: list[Array] = []
    for axis, extent in enumerate(half):
        center, pixels = means2d[:, axis], size[axis]
        first = jnp.clip(jnp.ceil(center - extent - 0.5), 0.0, float(pixels))
        last = jnp.clip(jnp.floor(center + extent - 0.5), -1.0, float(pixels - 1))
        tiles = jnp.floor(last / TILE_SIZE) - jnp.floor(first / TILE_SIZE) + 1.0
        spans.append(jnp.where(visible & (last >= first), tiles, 0.0).astype(jnp.int32))
    return jnp.sum(spans[0] * spans[1])
