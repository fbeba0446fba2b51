"""`rasterize`: splats to pixels, by custom call or reference, with its gradient rule; `render`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax import native
from fg3dgs_jax.rasterizer import reference
from fg3dgs_jax.rasterizer.projection import (
    align_leading,
    batch_shape,
    project,
    sum_to_shape,
    workspace,
)
from fg3dgs_jax.rasterizer.sh import eval_sh
from fg3dgs_jax.rasterizer.types import (
    Array,
    Projection,
    RasterAux,
    RenderOutput,
    check_rasterize,
    check_size,
)
from fg3dgs_jax.types import Camera

_CORES = (2, 1, 2, 2, 2, 1, 1)  # trailing ranks of _blend's operands
_CAPACITY_STEP = 1 << 14  # so that a few Gaussians more seldom mean another program
_MIN_COVER = 1e-10  # a pixel covered less has depth 0, not 0/0


def rasterize(
    projection: Projection,
    colors: Array,
    opacities: Array,
    *,
    width: int,
    height: int,
    background: Array | None = None,
    isect_capacity: int | None = None,
    backend: str = "auto",
) -> RenderOutput:
    """Blends splats front to back, equal depths in input order (eq. 4).

    colors [..., N, D], D <= 32 channels of anything; opacities [..., N] in [0, 1]; background
    [..., D] (None: black). Gradients flow from image and alpha to projection.means2d and .conics,
    colors, opacities and background. `isect_capacity`: how many (tile, Gaussian) pairs a GPU keeps
    for an image (None: `default_capacity`), a batch sharing the sum. Where that is too few, the
    farthest pairs are dropped and aux.overflow says so. The CPU's list grows by itself.
    """
    check_rasterize(projection, colors, opacities, background)
    check_size(width, height)
    if isect_capacity is not None and isect_capacity < 1:
        raise ValueError(f"isect_capacity is {isect_capacity}; expected at least 1, or None")
    backend = native.resolve_backend(backend)
    if backend == "reference":
        return reference.rasterize(
            projection, colors, opacities, width=width, height=height, background=background,
            isect_capacity=isect_capacity,
        )  # fmt: skip
    if background is None:
        background = jnp.zeros(colors.shape[-1], jnp.float32)
    means2d, depths, conics, radii, _ = projection
    operands = (means2d, depths, conics, radii, colors, opacities, background)
    operands = align_leading(
        [x if x is radii else jnp.asarray(x, jnp.float32) for x in operands], _CORES
    )
    width, height = int(width), int(height)
    capacity = isect_capacity or default_capacity(means2d.shape[-2], width, height)
    image, alpha, n_isects, dropped = _blend((backend, width, height, int(capacity)), *operands)
    return RenderOutput(image, alpha, None, RasterAux(radii, n_isects, dropped > 0))


def default_capacity(n: int, width: int, height: int) -> int:
    """How many (tile, Gaussian) pairs an image of n Gaussians gets on a GPU.

    Heads need 2 to 3 a Gaussian; 8 leave room. No image needs more than a pair for each tile of
    each Gaussian, so a small one cannot overflow.
    """
    tiles = -(-width // reference.TILE_SIZE) * -(-height // reference.TILE_SIZE)
    return max(1, min(n * tiles, -(-8 * n // _CAPACITY_STEP) * _CAPACITY_STEP))


def render(
    means: Array,
    quats: Array,
    scales: Array,
    opacities: Array,
    colors_or_sh: Array,
    camera: Camera,
    *,
    width: int,
    height: int,
    sh_degree: int | None = None,
    background: Array | None = None,
    depth: bool = False,
    means2d_probe: Array | None = None,
    backend: str = "auto",
    eps2d: float = reference.LOW_PASS,
    near: float = reference.NEAR,
    far: float = reference.FAR,
    antialiased: bool = False,
    isect_capacity: int | None = None,
) -> RenderOutput:
    """Draws 3D Gaussians.

    means [..., N, 3] m, quats [..., N, 4] wxyz, scales [..., N, 3] m (linear), opacities [..., N]
    in [0, 1]; `colors_or_sh`: colours [..., N, D], or with an int `sh_degree` SH coefficients
    [..., N, K, 3]. `depth`: also the expected depth sum(w z) / sum(w) in metres, 0 where nothing is
    drawn (it takes one channel). `means2d_probe`: zeros [..., N, 2] added to the projected centres;
    its gradient, in px, is what density control reads.
    """
    projection = project(
        means, quats, scales, opacities, camera, width=width, height=height, eps2d=eps2d, near=near,
        far=far, antialiased=antialiased, backend=backend,
    )  # fmt: skip
    colors = colors_or_sh
    if sh_degree is not None:
        colors = eval_sh(colors_or_sh, _directions(means, camera, projection.radii), sh_degree)
    if antialiased:
        opacities = opacities * projection.compensations
    if means2d_probe is not None:
        projection = projection._replace(means2d=projection.means2d + means2d_probe)
    if depth:
        colors, background = _with_depth(colors, projection.depths, background)
    out = rasterize(
        projection, colors, opacities, width=width, height=height, background=background,
        isect_capacity=isect_capacity, backend=backend,
    )  # fmt: skip
    if not depth:
        return out
    covered = out.alpha > _MIN_COVER
    expected = out.image[..., -1] / jnp.where(covered, out.alpha, 1.0)
    return out._replace(image=out.image[..., :-1], depth=jnp.where(covered, expected, 0.0))


def _directions(means: Array, camera: Camera, radii: Array) -> Array:
    """From the camera's centre to each Gaussian [..., N, 3]; constant where culled: no NaN."""
    pose = camera.world_to_camera
    center = -jnp.einsum("...ji,...j->...i", pose[..., :3, :3], pose[..., :3, 3])
    seen = radii[..., :1] > 0
    return jnp.where(seen, jnp.where(seen, means, 0.0) - center[..., None, :], 1.0)


def _with_depth(colors: Array, depths: Array, background: Array | None):
    """Appends depth as the last channel, over a background of 0 m."""
    batch = jnp.broadcast_shapes(colors.shape[:-1], depths.shape)
    colors = jnp.broadcast_to(colors, (*batch, colors.shape[-1]))
    depths = jnp.broadcast_to(depths, batch)
    colors = jnp.concatenate([colors, depths[..., None]], axis=-1)
    if background is not None:
        background = jnp.concatenate([background, jnp.zeros_like(background[..., :1])], axis=-1)
    return colors, background


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _blend(static, *operands):
    return _call_blend(static, operands)[:4]


def _call_blend(static, operands):
    """image, alpha, n_isects, n_dropped, and on a GPU the state that the gradient needs."""
    backend, width, height, capacity = static
    batch = batch_shape(operands, _CORES)
    n, channels = operands[4].shape[-2:]
    results = [
        jax.ShapeDtypeStruct((*batch, height, width, channels), jnp.float32),
        jax.ShapeDtypeStruct((*batch, height, width), jnp.float32),
        jax.ShapeDtypeStruct(batch, jnp.int32),
    ]
    if backend == "cuda":
        sizes = (n, width, height, channels, capacity)
        results.append(jax.ShapeDtypeStruct(batch, jnp.int32))
        results += [workspace(batch, area, *sizes) for area in ("state", "bin")]
    call = jax.ffi.ffi_call("fg3dgs_rasterize_fwd", results, vmap_method="expand_dims")
    if backend == "cuda":
        return tuple(call(*operands, capacity=np.int64(capacity)))[:5]
    image, alpha, n_isects = call(*operands)
    return image, alpha, n_isects, jnp.zeros_like(n_isects)


def _blend_fwd(static, *operands):
    image, alpha, n_isects, n_dropped, *state = _call_blend(static, operands)
    return (image, alpha, n_isects, n_dropped), (operands, image, alpha, state)


def _blend_bwd(static, residuals, cotangents):
    backend, width, height, capacity = static
    operands, image, alpha, state = residuals
    means2d, depths, conics, radii, colors, opacities, background = operands
    v_image, v_alpha, _, _ = cotangents
    batch, n, channels = alpha.shape[:-2], means2d.shape[-2], colors.shape[-1]
    shapes = [(n, 2), (n, 3), (n, channels), (n,), (channels,)]
    results = [jax.ShapeDtypeStruct(batch + s, jnp.float32) for s in shapes]
    arguments, attributes = (*operands[:6], image, alpha, v_image, v_alpha), {}
    if backend == "cuda":
        results.append(workspace(batch, "blend_grad", n, width, height, channels, capacity))
        arguments = (colors, image, alpha, *state, v_image, v_alpha)
        attributes = {"capacity": np.int64(capacity)}
    call = jax.ffi.ffi_call("fg3dgs_rasterize_bwd", results, vmap_method="expand_dims")
    gradients = call(*arguments, **attributes)[:5]
    wanted = (means2d, conics, colors, opacities, background)
    v_means2d, v_conics, v_colors, v_opacities, v_background = (
        sum_to_shape(g, x.shape) for g, x in zip(gradients, wanted, strict=True)
    )
    v_radii = np.zeros(radii.shape, jax.dtypes.float0)
    return (
        v_means2d, jnp.zeros_like(depths), v_conics, v_radii, v_colors, v_opacities, v_background,
    )  # fmt: skip


_blend.defvjp(_blend_fwd, _blend_bwd)
