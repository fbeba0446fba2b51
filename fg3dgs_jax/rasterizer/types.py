"""What passes between the rasterizer's stages, and the checks at its doors.

Letters: n Gaussians, d channels, h x w pixels, k SH bases. In an annotation `*batch` are leading
dimensions, and `*#batch` ones that may each be 1 where another argument has more.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from fg3dgs_jax.types import Array, Camera

MAX_CHANNELS = 32  # what one pass blends: the kernels keep that many sums a pixel


class Projection(NamedTuple):
    """Gaussians seen by a camera. A culled one has radii 0, and zeros everywhere else.

    Attributes:
      means2d: centres, px. Pixel (row i, column j) has its own at (j + 0.5, i + 0.5).
      depths: z in the camera's frame, metres.
      conics: A, B, C of A dx^2 + 2 B dx dy + C dy^2, 1/px^2.
      radii: half the box where alpha can reach 1/255, px. 0 means culled.
      compensations: what antialiasing multiplies the opacity by. 1 without it.
    """

    means2d: Float[Array, "*batch n 2"]
    depths: Float[Array, "*batch n"]
    conics: Float[Array, "*batch n 3"]
    radii: Int[Array, "*batch n 2"]
    compensations: Float[Array, "*batch n"]


class RasterAux(NamedTuple):
    """What the density control and the capacity monitor read. It carries no gradient.

    Attributes:
      radii: those of the projection, px.
      n_isects: how many (tile, Gaussian) pairs the image needed.
      overflow: whether the capacity was too small, so that the farthest pairs were dropped.
    """

    radii: Int[Array, "*batch n 2"]
    n_isects: Int[Array, "*batch"]
    overflow: Bool[Array, "*batch"]


class RenderOutput(NamedTuple):
    """A picture, premultiplied, over its background when one was given.

    Attributes:
      image: the blended channels.
      alpha: 1 - what the background keeps.
      depth: expected depth, metres. None unless asked for.
      aux: counts and radii.
    """

    image: Float[Array, "*batch h w d"]
    alpha: Float[Array, "*batch h w"]
    depth: Float[Array, "*batch h w"] | None
    aux: RasterAux


def check_gaussians(means: Array, quats: Array, scales: Array, opacities: Array) -> None:
    """Refuses all but float [..., N, 3], [..., N, 4], [..., N, 3], [..., N] of one N.

    Raises:
      ValueError: one line that names the argument, its shape and the expected one.
    """
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
    """Refuses a pose that is not float [..., 4, 4], intrinsics that do not broadcast with it.

    Raises:
      ValueError: no Camera, or one that does not fit.
    """
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


def check_rasterize(
    projection: Projection, colors: Array, opacities: Array, background: Array | None
) -> None:
    """Refuses colours [..., N, D], opacities [..., N], a background [..., D] that do not fit.

    Raises:
      ValueError: one line that names the argument, its shape and the expected one.
    """
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


def check_size(width: int, height: int) -> None:
    """Refuses a picture size that is not two positive static ints. They shape the program.

    Raises:
      ValueError: a traced or non-integer size, or one below 1 px.
    """
    for name, value in (("width", width), ("height", height)):
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise ValueError(f"{name} is a {type(value).__name__}; expected a static int, in px")
        if int(value) < 1:
            raise ValueError(f"{name} is {int(value)}; expected at least 1 px")


def leading_shape(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that leading dimensions broadcast to."""
    return jnp.broadcast_shapes(*shapes)


def _check_array(name: str, value: Any, core: tuple[int | str, ...]) -> None:
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


def _check_same(what: str, lengths: Mapping[str, int]) -> None:
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"{what} differs: {listed}; expected one value")


def _check_leading(leading: Mapping[str, tuple[int, ...]]) -> None:
    try:
        leading_shape(*leading.values())
    except ValueError:
        listed = ", ".join(f"{name} {tuple(shape)}" for name, shape in leading.items())
        raise ValueError(
            f"batch dimensions do not broadcast: {listed}; expected equal lengths or 1"
        ) from None
