"""What passes between the rasterizer's stages, and the checks at its doors.

Letters: N Gaussians, D channels, H x W pixels; leading batch dimensions are `...`, and each may be
1 where another argument has B.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fg3dgs_jax.types import Camera

Array = jax.Array

MAX_CHANNELS = 32  # what one pass blends; the kernels keep that many sums a pixel


class Projection(NamedTuple):
    """Gaussians seen by a camera. A culled one has radii 0, and zeros everywhere else."""

    means2d: Array  # [..., N, 2] px; pixel (row i, column j) has its centre at (j + 0.5, i + 0.5)
    depths: Array  # [..., N] camera z, metres
    conics: Array  # [..., N, 3] A, B, C of A dx^2 + 2 B dx dy + C dy^2, 1/px^2
    radii: Array  # [..., N, 2] int32 px, half the box where alpha can reach 1/255; 0 = culled
    compensations: Array  # [..., N] what antialiasing multiplies the opacity by; 1 without it


class RasterAux(NamedTuple):
    """What the density control and the capacity monitor read; carries no gradient."""

    radii: Array  # [..., N, 2] int32 px
    n_isects: Array  # [...] int32, (tile, Gaussian) pairs that the image needed
    overflow: Array  # [...] bool: the capacity was too small, the farthest pairs were dropped


class RenderOutput(NamedTuple):
    """A picture, premultiplied, over its background when one was given."""

    image: Array  # [..., H, W, D]
    alpha: Array  # [..., H, W] = 1 - what the background keeps
    depth: Array | None  # [..., H, W] metres
    aux: RasterAux


def check_gaussians(means, quats, scales, opacities) -> None:
    """Refuses all but float [..., N, 3], [..., N, 4], [..., N, 3], [..., N] of one N."""
    _check_array("means", means, ("N", 3))
    _check_array("quats", quats, ("N", 4))
    _check_array("scales", scales, ("N", 3))
    _check_array("opacities", opacities, ("N",))
    counts = {
        "means": means.shape[-2],
        "quats": quats.shape[-2],
        "scales": scales.shape[-2],
        "opacities": opacities.shape[-1],
    }
    _check_same("N, the number of Gaussians,", counts)
    _check_leading(
        {
            "means": means.shape[:-2],
            "quats": quats.shape[:-2],
            "scales": scales.shape[:-2],
            "opacities": opacities.shape[:-1],
        }
    )


def check_camera(camera: Camera) -> None:
    """Refuses a pose that is not float [..., 4, 4], intrinsics that do not broadcast with it."""
    if not all(hasattr(camera, field) for field in Camera._fields):
        raise ValueError(
            f"camera is a {type(camera).__name__}; "
            "expected a Camera(world_to_camera, fx, fy, cx, cy)"
        )
    _check_array("camera.world_to_camera", camera.world_to_camera, (4, 4))
    leading = {"camera.world_to_camera": camera.world_to_camera.shape[:-2]}
    leading.update(
        {f"camera.{name}": jnp.shape(getattr(camera, name)) for name in ("fx", "fy", "cx", "cy")}
    )
    _check_leading(leading)


def check_rasterize(projection: Projection, colors, opacities, background) -> None:
    """Refuses colours [..., N, D], opacities [..., N], a background [..., D] that do not fit."""
    if not all(hasattr(projection, field) for field in Projection._fields):
        raise ValueError(
            f"projection is a {type(projection).__name__}; expected what project() returns"
        )
    _check_array("projection.means2d", projection.means2d, ("N", 2))
    _check_array("projection.conics", projection.conics, ("N", 3))
    _check_array("projection.depths", projection.depths, ("N",))
    _check_array("colors", colors, ("N", "D"))
    _check_array("opacities", opacities, ("N",))
    _check_same(
        "N, the number of Gaussians,",
        {
            "projection.means2d": projection.means2d.shape[-2],
            "colors": colors.shape[-2],
            "opacities": opacities.shape[-1],
        },
    )
    channels = colors.shape[-1]
    if not 1 <= channels <= MAX_CHANNELS:
        raise ValueError(
            f"colors have {channels} channels; "
            f"expected 1 to {MAX_CHANNELS}: blend the rest in a second call"
        )
    leading = {
        "projection": projection.means2d.shape[:-2],
        "colors": colors.shape[:-2],
        "opacities": opacities.shape[:-1],
    }
    if background is not None:
        _check_array("background", background, ("D",))
        _check_same(
            "D, the number of channels,", {"colors": channels, "background": background.shape[-1]}
        )
        leading["background"] = background.shape[:-1]
    _check_leading(leading)


def check_size(width, height) -> None:
    """Refuses a picture size that is not two positive static ints (they shape the program)."""
    for name, value in (("width", width), ("height", height)):
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise ValueError(f"{name} is a {type(value).__name__}; expected a static int, in px")
        if int(value) < 1:
            raise ValueError(f"{name} is {int(value)}; expected at least 1 px")


def leading_shape(*shapes) -> tuple[int, ...]:
    """The batch dimensions that `shapes` (batch dimensions only) broadcast to."""
    return jnp.broadcast_shapes(*shapes)


def _check_array(name: str, value, core: tuple) -> None:
    """`core`: the trailing dimensions, an int where the length is fixed, a letter if free."""
    expected = "[" + ", ".join(("...", *map(str, core))) + "]"
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        raise ValueError(f"{name} is a {type(value).__name__}; expected a float array {expected}")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(
            f"{name} is {value.dtype}; expected a float array {expected}: cast it first"
        )
    tail = value.shape[len(value.shape) - len(core) :]
    fits = len(tail) == len(core) and all(
        isinstance(c, str) or c == t for c, t in zip(core, tail, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} has shape {tuple(value.shape)}; expected {expected}")


def _check_same(what: str, lengths: dict[str, int]) -> None:
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"{what} differs: {found}; expected one value")


def _check_leading(leading: dict[str, tuple]) -> None:
    try:
        leading_shape(*leading.values())
    except ValueError:
        found = ", ".join(f"{name} {tuple(shape)}" for name, shape in leading.items())
        raise ValueError(
            f"batch dimensions do not broadcast: {found}; expected equal lengths or 1"
        ) from None
