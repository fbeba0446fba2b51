"""`rasterize`: splats to pixels, by custom call or reference, with its gradient rule. `render`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from fg3dgs_jax import native
from fg3dgs_jax.rasterizer import reference
from fg3dgs_jax.rasterizer.projection import (
    align_leading,
    batch_shape,
    f32,
    i32,
    project,
    sum_to_shape,
    workspace,
)
from fg3dgs_jax.rasterizer.sh import view_colors
from fg3dgs_jax.rasterizer.types import (
    Projection,
    RasterAux,
    RenderOutput,
    check_rasterize,
    check_size,
)
from fg3dgs_jax.types import Array, Camera

_CORES = (2, 1, 2, 2, 2, 1, 1)  # trailing ranks of _blend's operands
_CAPACITY_STEP = 1 << 14  # so that a few Gaussians more seldom mean another program
_MIN_COVER = 1e-10  # a pixel covered less has depth 0, not 0/0


def rasterize(
    projection: Projection,
    colors: Float[Array, "*#batch n d"],
    opacities: Float[Array, "*#batch n"],
    *,
    width: int,
    height: int,
    background: Float[Array, "*#batch d"] | None = None,
    isect_capacity: int | None = None,
    backend: str = "auto",
) -> RenderOutput:
    """Blends splats front to back, equal depths in input order (eq. 4).

    Gradients flow from image and alpha to projection.means2d and .conics, colors, opacities and
    background.

    Args:
      projection: what `project` returned.
      colors: up to 32 channels of anything.
      opacities: in [0, 1].
      width: of the picture, px.
      height: of the picture, px.
      background: one value a channel (None: black).
      isect_capacity: how many (tile, Gaussian) pairs a GPU keeps for an image (None:
        `default_capacity`). A batch shares the sum. Where that is too few, the farthest pairs are
        dropped and aux.overflow is True. The CPU's list grows by itself.
      backend: "auto", "cuda", "cpu" or "reference". See `native.resolve_backend`.

    Returns:
      The picture, without depth.

    Raises:
      ValueError: arguments that do not fit together, or a backend that is not built.
    """
    check_rasterize(projection, colors, opacities, background)
    check_size(width, height)
    if isect_capacity is not None and isect_capacity < 1:
        raise ValueError(f"isect_capacity is {isect_capacity}; expected at least 1, or None")
    backend = native.resolve_backend(backend)
    if backend == "reference":
        return reference.rasterize(
            projection,
            colors,
            opacities,
            width=width,
            height=height,
            background=background,
            isect_capacity=isect_capacity,
        )
    if background is None:
        background = jnp.zeros(colors.shape[-1], jnp.float32)
    means2d, depths, conics, radii, _ = projection
    operands = (means2d, depths, conics, radii, colors, opacities, background)
    operands = align_leading(
        [x if x is radii else jnp.asarray(x, jnp.float32) for x in operands], _CORES
    )
    width, height = int(width), int(height)
    capacity = isect_capacity or default_capacity(means2d.shape[-2], width, height)
    canvas = _Canvas(backend, width, height, int(capacity))
    image, alpha, n_isects, dropped = _blend(canvas, *operands)
    return RenderOutput(image, alpha, None, RasterAux(radii, n_isects, dropped > 0))


def default_capacity(n: int, width: int, height: int) -> int:
    """How many (tile, Gaussian) pairs an image of `n` Gaussians gets on a GPU.

    Heads need 2 to 3 a Gaussian, and 8 leave room. No image needs more than a pair for each tile of
    each Gaussian, so a small one cannot overflow.
    """
    tiles = -(-width // reference.TILE_SIZE) * -(-height // reference.TILE_SIZE)
    return max(1, min(n * tiles, -(-8 * n // _CAPACITY_STEP) * _CAPACITY_STEP))


def render(
    means: Float[Array, "*#batch n 3"],
    quats: Float[Array, "*#batch n 4"],
    scales: Float[Array, "*#batch n 3"],
    opacities: Float[Array, "*#batch n"],
    colors_or_sh: Float[Array, "*#batch n d"] | Float[Array, "*#batch n k 3"],
    camera: Camera,
    *,
    width: int,
    height: int,
    sh_degree: int | None = None,
    background: Float[Array, "*#batch d"] | None = None,
    depth: bool = False,
    means2d_probe: Float[Array, "*#batch n 2"] | None = None,
    backend: str = "auto",
    eps2d: float = reference.LOW_PASS,
    near: float = reference.NEAR,
    far: float = reference.FAR,
    antialiased: bool = False,
    isect_capacity: int | None = None,
) -> RenderOutput:
    """Draws 3D Gaussians: `project`, colours, `rasterize`.

    Args:
      means: centres, metres.
      quats: wxyz, of any length.
      scales: standard deviations, metres (linear).
      opacities: in [0, 1].
      colors_or_sh: colours, or with an int `sh_degree` SH coefficients.
      camera: its fields may have leading dimensions too.
      width: of the picture, px.
      height: of the picture, px.
      sh_degree: degree of the SH coefficients, 0 to 3. None for colours.
      background: one value a channel (None: black).
      depth: also the expected depth sum(w z) / sum(w) in metres, 0 where nothing is drawn. It takes
        one of the channels.
      means2d_probe: zeros that are added to the projected centres. Their gradient, in px, is what
        density control reads.
      backend: "auto", "cuda", "cpu" or "reference". See `native.resolve_backend`.
      eps2d: low-pass on the diagonal of the 2D covariance, px^2.
      near: nearest depth that is drawn, metres.
      far: farthest depth that is drawn, metres.
      antialiased: dim what the low-pass widens, so that it keeps its brightness.
      isect_capacity: see `rasterize`.

    Returns:
      The picture.

    Raises:
      ValueError: arguments that do not fit together, or a backend that is not built.
    """
    projection = project(
        means,
        quats,
        scales,
        opacities,
        camera,
        width=width,
        height=height,
        eps2d=eps2d,
        near=near,
        far=far,
        antialiased=antialiased,
        backend=backend,
    )
    colors = colors_or_sh
    if sh_degree is not None:
        visible = projection.radii[..., 0] > 0
        colors = view_colors(colors_or_sh, means, camera, sh_degree, visible)
    if antialiased:
        opacities = opacities * projection.compensations
    if means2d_probe is not None:
        projection = projection._replace(means2d=projection.means2d + means2d_probe)
    if depth:
        colors, background = _with_depth(colors, projection.depths, background)
    out = rasterize(
        projection,
        colors,
        opacities,
        width=width,
        height=height,
        background=background,
        isect_capacity=isect_capacity,
        backend=backend,
    )
    if not depth:
        return out
    covered = out.alpha > _MIN_COVER
    expected = out.image[..., -1] / jnp.where(covered, out.alpha, 1.0)
    return out._replace(image=out.image[..., :-1], depth=jnp.where(covered, expected, 0.0))


def _with_depth(
    colors: Array, depths: Array, background: Array | None
) -> tuple[Array, Array | None]:
    """Appends depth as the last channel, over a background of 0 m."""
    batch = jnp.broadcast_shapes(colors.shape[:-1], depths.shape)
    colors = jnp.broadcast_to(colors, (*batch, colors.shape[-1]))
    depths = jnp.broadcast_to(depths, batch)
    colors = jnp.concatenate([colors, depths[..., None]], axis=-1)
    if background is not None:
        background = jnp.concatenate([background, jnp.zeros_like(background[..., :1])], axis=-1)
    return colors, background


class _Canvas(NamedTuple):
    """What shapes a program that blends."""

    backend: str
    width: int  # px
    height: int  # px
    capacity: int  # (tile, Gaussian) pairs of an image, on a GPU


class _Residuals(NamedTuple):
    """What the gradient of blending reads."""

    operands: tuple[Array, ...]
    image: Array
    alpha: Array
    state: tuple[Array, ...]  # what CUDA's forward keeps


def _blend_and_drop(canvas: _Canvas, *operands: Array) -> tuple[Array, ...]:
    return _call_blend(canvas, operands)[:4]


def _call_blend(canvas: _Canvas, operands: tuple[Array, ...]) -> tuple[Array, ...]:
    """Image, alpha, n_isects, n_dropped, and on a GPU the state that the gradient needs."""
    backend, width, height, capacity = canvas
    batch = batch_shape(operands, _CORES)
    n, channels = operands[4].shape[-2:]
    results = [f32(*batch, height, width, channels), f32(*batch, height, width), i32(*batch)]
    if backend == "cuda":
        sizes = (n, width, height, channels, capacity)
        results.append(i32(*batch))
        results += [workspace(batch, area, *sizes) for area in ("state", "bin")]
    call = jax.ffi.ffi_call("fg3dgs_rasterize_fwd", results, vmap_method="expand_dims")
    if backend == "cuda":
        return tuple(call(*operands, capacity=np.int64(capacity)))[:5]
    image, alpha, n_isects = call(*operands)
    return image, alpha, n_isects, jnp.zeros_like(n_isects)


def _blend_fwd(canvas: _Canvas, *operands: Array) -> tuple[tuple[Array, ...], _Residuals]:
    image, alpha, n_isects, n_dropped, *state = _call_blend(canvas, operands)
    return (image, alpha, n_isects, n_dropped), _Residuals(operands, image, alpha, tuple(state))


def _blend_bwd(
    canvas: _Canvas, residuals: _Residuals, cotangents: tuple[Array | np.ndarray, ...]
) -> tuple[Array | np.ndarray, ...]:
    backend, width, height, capacity = canvas
    operands, image, alpha, state = residuals
    means2d, depths, conics, radii, colors, opacities, background = operands
    v_image, v_alpha, _, _ = cotangents  # counts have cotangents of float0
    batch, n, d = alpha.shape[:-2], means2d.shape[-2], colors.shape[-1]
    results = [f32(*batch, n, 2), f32(*batch, n, 3), f32(*batch, n, d), f32(*batch, n)]
    results.append(f32(*batch, d))
    arguments: tuple[Array | np.ndarray, ...] = (*operands[:6], image, alpha, v_image, v_alpha)
    attributes: dict[str, np.generic] = {}
    if backend == "cuda":
        results.append(workspace(batch, "blend_grad", n, width, height, d, capacity))
        arguments = (colors, image, alpha, *state, v_image, v_alpha)
        attributes = {"capacity": np.int64(capacity)}
    call = jax.ffi.ffi_call("fg3dgs_rasterize_bwd", results, vmap_method="expand_dims")
    gradients = call(*arguments, **attributes)[:5]
    differentiated = (means2d, conics, colors, opacities, background)
    v_means2d, v_conics, v_colors, v_opacities, v_background = (
        sum_to_shape(g, x.shape) for g, x in zip(gradients, differentiated, strict=True)
    )
    v_depths, v_radii = jnp.zeros_like(depths), np.zeros(radii.shape, jax.dtypes.float0)
    return v_means2d, v_depths, v_conics, v_radii, v_colors, v_opacities, v_background


_blend = jax.custom_vjp(_blend_and_drop, nondiff_argnums=(0,))
_blend.defvjp(_blend_fwd, _blend_bwd)
