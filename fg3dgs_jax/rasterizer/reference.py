"""The rasterizer's definition: plain jnp, differentiated by JAX; the kernels must agree with it.

Projection is the EWA splat of 3D Gaussian splatting (eqs. 2-3), blending is front-to-back alpha
compositing (eq. 4). The image is dense, [pixels x N] in chunks of pixels: up to about 4,000
Gaussians are practical.
"""

import jax
import jax.numpy as jnp

from fg3dgs_jax.rasterizer.types import (
    Array,
    Projection,
    RasterAux,
    RenderOutput,
    check_camera,
    check_gaussians,
    check_rasterize,
    check_size,
    leading_shape,
)
from fg3dgs_jax.types import Camera

# The kernels' copies of these live in native/core/constants.h; a test compares the two.
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


def project(
    means: Array,
    quats: Array,
    scales: Array,
    opacities: Array,
    camera: Camera,
    *,
    width: int,
    height: int,
    eps2d: float = LOW_PASS,
    near: float = NEAR,
    far: float = FAR,
    antialiased: bool = False,
) -> Projection:
    """Gaussians as a camera sees them.

    means [..., N, 3] m, quats [..., N, 4] wxyz of any length, scales [..., N, 3] m, opacities
    [..., N], which only decide the radii, without gradient. Culled (radii 0): outside [near, far],
    off the picture, too faint to leave a trace, NaN or infinite parameters, zero quaternions.
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
    intrinsics = tuple(
        jnp.asarray(value, means.dtype)[..., None] for value in camera[1:]
    )  # [..., 1], against N
    world_to_camera = camera.world_to_camera

    # Two passes: the first finds which Gaussians are sound, the second sees harmless values in
    # place of the others, so that neither their numbers nor their gradients (0 * inf) reach a sum.
    frozen = jax.lax.stop_gradient((means, quats, scales, world_to_camera, intrinsics))
    everyone = jnp.ones((*batch, count), bool)
    *drawn, squared_norm = _splat(*frozen, everyone, width, height, eps2d)
    means2d, depths, conics, determinant, ratio = drawn
    sound = (
        jnp.isfinite(opacities)
        & (squared_norm > 0.0)
        & (depths >= near)
        & (depths <= far)
        & (determinant > 0.0)
    )
    for values in (means, quats, scales, means2d, conics):
        sound &= jnp.all(jnp.isfinite(values), axis=-1)
    sound &= jnp.isfinite(determinant) & jnp.isfinite(squared_norm) & (ratio >= 0.0)

    means2d, depths, conics, _, ratio, _ = _splat(
        means, quats, scales, world_to_camera, intrinsics, sound, width, height, eps2d
    )
    compensations = _compensation(ratio) if antialiased else jnp.ones_like(depths)

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
    largest = 2.0**30  # a splat can be wider than an int32 can say
    return Projection(
        means2d=jnp.where(keep, means2d, 0.0),
        depths=jnp.where(visible, depths, 0.0),
        conics=jnp.where(keep, conics, 0.0),
        radii=jnp.where(keep, jnp.minimum(radii, largest), 0.0).astype(jnp.int32),
        compensations=jnp.where(visible, compensations, 0.0),
    )


def rasterize(
    projection: Projection,
    colors: Array,
    opacities: Array,
    *,
    width: int,
    height: int,
    background: Array | None = None,
    isect_capacity: int | None = None,
) -> RenderOutput:
    """Blends projected Gaussians front to back; equal depths in input order.

    colors [..., N, D], opacities [..., N], background [..., D] (None: black). `isect_capacity` is
    the kernels' static list length; nothing overflows here.
    """
    check_rasterize(projection, colors, opacities, background)
    check_size(width, height)
    if background is None:
        background = jnp.zeros((colors.shape[-1],), colors.dtype)

    def blend(means2d, depths, conics, radii, colors, opacities, background):
        return _blend(means2d, depths, conics, radii, colors, opacities, background, width, height)

    blend = jnp.vectorize(blend, signature="(n,p),(n),(n,q),(n,p),(n,d),(n),(d)->(h,w,d),(h,w),()")
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


def _splat(means, quats, scales, world_to_camera, intrinsics, sound, width, height, eps2d):
    """means2d, depths, conics, the 2D determinant, its share before the low-pass, |q|^2.

    Where not `sound`, those of a harmless Gaussian in front of the camera.
    """
    fx, fy, cx, cy = intrinsics
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
    factor = (
        _rotation_matrix(quats / jnp.sqrt(squared_norm)[..., None]) * scales[..., None, :]
    )  # Sigma = M M^T, eq. (2)

    # The Jacobian of the pinhole at the centre; outside the picture plus a margin it stops
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
    spread_x = jnp.sum(
        row_x[..., :, None] * factor, axis=-2
    )  # rows of J W M, so Sigma2 = (J W M)(J W M)^T, eq. (3)
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
    return means2d, z, conics, determinant, ratio, squared_norm


def _rotation_matrix(quats):
    """[..., 3, 3] of unit wxyz quaternions [..., 4]."""
    w, x, y, z = quats[..., 0], quats[..., 1], quats[..., 2], quats[..., 3]
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def _compensation(ratio):
    """Takes back the brightness that the low-pass adds; floored, with no gradient there."""
    floor = COMPENSATION_MIN**2
    return jnp.sqrt(jnp.where(ratio > floor, ratio, floor))


def _half_extents(conics, opacities, sound):
    """Half width and height, px, of the box around the ellipse alpha >= 1/255; 0 if unseen."""
    a, b, c = conics[..., 0], conics[..., 1], conics[..., 2]
    determinant = a * c - b * b
    brightness = jnp.where(opacities > ALPHA_MIN, opacities / ALPHA_MIN, 1.0)
    reach = 2.0 * jnp.log(brightness)  # squared distance, in sigmas, at which alpha = 1/255
    sound = sound & (determinant > 0.0)
    safe = jnp.where(sound, determinant, 1.0)
    half_x = jnp.where(sound, jnp.sqrt(reach * jnp.where(sound, c / safe, 0.0)), 0.0)
    half_y = jnp.where(sound, jnp.sqrt(reach * jnp.where(sound, a / safe, 0.0)), 0.0)
    return half_x, half_y


def _blend(means2d, depths, conics, radii, colors, opacities, background, width, height):
    """One picture: image [H, W, D], alpha [H, W], the count of (tile, Gaussian) pairs."""
    finite = jnp.isfinite(depths) & jnp.isfinite(opacities)
    for values in (means2d, conics, colors):
        finite &= jnp.all(jnp.isfinite(values), axis=-1)
    visible = finite & jnp.all(radii > 0, axis=-1) & (opacities > ALPHA_MIN)
    keep = visible[:, None]
    means2d, conics, colors = (jnp.where(keep, x, 0.0) for x in (means2d, conics, colors))
    opacities = jnp.where(visible, opacities, 0.0)
    n_isects = _count_isects(
        *jax.lax.stop_gradient((means2d, conics, opacities)), visible, width, height
    )

    order = jnp.argsort(jnp.where(visible, depths, jnp.inf), stable=True)  # ties by index
    means2d, conics, colors, opacities = (x[order] for x in (means2d, conics, colors, opacities))

    # Recomputed in the backward pass: all chunks' [pixels x N] intermediates would not fit.
    @jax.checkpoint
    def blend_chunk(pixels):
        weights = _weights(pixels, means2d, conics, opacities)
        return jnp.matmul(weights, colors, precision="highest"), jnp.sum(weights, axis=1)

    n_pixels, n_gaussians = width * height, means2d.shape[0]
    chunk = min(n_pixels, max(64, _CHUNK_ELEMENTS // max(n_gaussians, 1)))
    n_chunks = -(-n_pixels // chunk)
    index = jnp.minimum(
        jnp.arange(n_chunks * chunk), n_pixels - 1
    )  # the tail repeats the last pixel
    pixels = jnp.stack([index % width, index // width], axis=-1).astype(means2d.dtype) + 0.5
    image, alpha = jax.lax.map(blend_chunk, pixels.reshape(n_chunks, chunk, 2))
    image = image.reshape(n_chunks * chunk, -1)[:n_pixels].reshape(height, width, -1)
    alpha = alpha.reshape(-1)[:n_pixels].reshape(height, width)
    return image + (1.0 - alpha)[..., None] * background, alpha, n_isects


def _weights(pixels, means2d, conics, opacities):
    """Blending weights [P, N] of depth-sorted Gaussians in pixels [P, 2], eq. (4)."""
    dx = means2d[None, :, 0] - pixels[:, None, 0]
    dy = means2d[None, :, 1] - pixels[:, None, 1]
    a, b, c = conics[:, 0], conics[:, 1], conics[:, 2]
    power = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    alpha = opacities * jnp.exp(-jnp.maximum(power, 0.0))
    alpha = jnp.where(alpha > ALPHA_MAX, ALPHA_MAX, alpha)
    alpha = jnp.where((alpha >= ALPHA_MIN) & (power >= 0.0), alpha, 0.0)
    after = jnp.cumprod(1.0 - alpha, axis=1)  # transmittance behind each, were there no stop
    alpha = jnp.where(
        after >= TRANSMITTANCE_MIN, alpha, 0.0
    )  # `after` falls along a row: once below, below for good
    before = jnp.concatenate([jnp.ones_like(after[:, :1]), after[:, :-1]], axis=1)[
        :, : after.shape[1]
    ]
    return alpha * before


def _count_isects(means2d, conics, opacities, visible, width, height):
    """How many (tile, Gaussian) pairs have a pixel centre of the tile in the Gaussian's box."""
    spans = []
    for axis, half in enumerate(_half_extents(conics, opacities, visible)):
        size = (width, height)[axis]
        center = means2d[:, axis]
        first = jnp.clip(jnp.ceil(center - half - 0.5), 0.0, float(size))
        last = jnp.clip(jnp.floor(center + half - 0.5), -1.0, float(size - 1))
        tiles = jnp.floor(last / TILE_SIZE) - jnp.floor(first / TILE_SIZE) + 1.0
        spans.append(jnp.where(visible & (last >= first), tiles, 0.0).astype(jnp.int32))
    return jnp.sum(spans[0] * spans[1])
