"""The Inception network behind FID, as pytorch-fid has it: a picture in 2048 numbers.

It is Inception v3 with TensorFlow's habits: the average pools of blocks 5 to 7b leave the padding
out of the mean, block 7c pools by maximum, and pictures are resized to 299 x 299 px without
smoothing. Any other choice gives other FID values.
"""

import os
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax.weights import variables as variables_lib
from fg3dgs_jax.weights.keys import Keys

SIZE = 299  # px
FEATURES = 2048
_EPSILON = 1e-3  # of the batch norms
_PRECISION = jax.lax.Precision.HIGHEST


class Conv(NamedTuple):
    """Convolution without bias, batch norm, ReLU; "SAME" or no padding, rows x columns."""

    name: str
    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    same: bool = True


# What else a chain of steps may have: one of these pools, or, at its end, a tuple of convolutions
# of the same input whose results stand one behind the other.
AVERAGE, MAXIMUM, REDUCE = "average 3 x 3", "maximum 3 x 3", "maximum 3 x 3 at every second px"
_ACROSS, _DOWN, _SQUARE = (1, 7), (7, 1), (3, 3)
_EDGE: Any = ((1, 1), (1, 1))  # flax takes it for a pool's padding, but names no type


def _block_a(pooled):
    return (
        (Conv("branch1x1", 64),),
        (Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, (5, 5))),
        (
            Conv("branch3x3dbl_1", 64),
            Conv("branch3x3dbl_2", 96, _SQUARE),
            Conv("branch3x3dbl_3", 96, _SQUARE),
        ),
        (AVERAGE, Conv("branch_pool", pooled)),
    )


def _block_b():
    return (
        (Conv("branch3x3", 384, _SQUARE, 2, False),),
        (
            Conv("branch3x3dbl_1", 64),
            Conv("branch3x3dbl_2", 96, _SQUARE),
            Conv("branch3x3dbl_3", 96, _SQUARE, 2, False),
        ),
        (REDUCE,),
    )


def _block_c(inner):
    return (
        (Conv("branch1x1", 192),),
        (
            Conv("branch7x7_1", inner),
            Conv("branch7x7_2", inner, _ACROSS),
            Conv("branch7x7_3", 192, _DOWN),
        ),
        (
            Conv("branch7x7dbl_1", inner),
            Conv("branch7x7dbl_2", inner, _DOWN),
            Conv("branch7x7dbl_3", inner, _ACROSS),
            Conv("branch7x7dbl_4", inner, _DOWN),
            Conv("branch7x7dbl_5", 192, _ACROSS),
        ),
        (AVERAGE, Conv("branch_pool", 192)),
    )


def _block_d():
    return (
        (Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, _SQUARE, 2, False)),
        (
            Conv("branch7x7x3_1", 192),
            Conv("branch7x7x3_2", 192, _ACROSS),
            Conv("branch7x7x3_3", 192, _DOWN),
            Conv("branch7x7x3_4", 192, _SQUARE, 2, False),
        ),
        (REDUCE,),
    )


def _block_e(pool):
    def fork(name):
        return Conv(f"{name}a", 384, (1, 3)), Conv(f"{name}b", 384, (3, 1))

    return (
        (Conv("branch1x1", 320),),
        (Conv("branch3x3_1", 384), fork("branch3x3_2")),
        (
            Conv("branch3x3dbl_1", 448),
            Conv("branch3x3dbl_2", 384, _SQUARE),
            fork("branch3x3dbl_3"),
        ),
        (pool, Conv("branch_pool", 192)),
    )


STEM = (
    Conv("Conv2d_1a_3x3", 32, _SQUARE, 2, False),
    Conv("Conv2d_2a_3x3", 32, _SQUARE, 1, False),
    Conv("Conv2d_2b_3x3", 64, _SQUARE),
    REDUCE,
    Conv("Conv2d_3b_1x1", 80),
    Conv("Conv2d_4a_3x3", 192, _SQUARE, 1, False),
    REDUCE,
)
BLOCKS = {
    "Mixed_5b": _block_a(32),
    "Mixed_5c": _block_a(64),
    "Mixed_5d": _block_a(64),
    "Mixed_6a": _block_b(),
    "Mixed_6b": _block_c(128),
    "Mixed_6c": _block_c(160),
    "Mixed_6d": _block_c(160),
    "Mixed_6e": _block_c(192),
    "Mixed_7a": _block_d(),
    "Mixed_7b": _block_e(AVERAGE),
    "Mixed_7c": _block_e(MAXIMUM),
}


class _ConvNorm(nn.Module):
    row: Conv

    @nn.compact
    def __call__(self, x):
        _, features, kernel, stride, same = self.row
        pad = [(size // 2, size // 2) if same else (0, 0) for size in kernel]
        x = nn.Conv(
            features, kernel, stride, pad, use_bias=False, precision=_PRECISION, name="conv"
        )(x)
        return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=_EPSILON, name="bn")(x))


def _run(steps, x):
    """Of a chain of steps, inside the module that holds it."""
    for step in steps:
        if isinstance(step, Conv):
            x = _ConvNorm(step, name=step.name)(x)
        elif isinstance(step, tuple):
            x = jnp.concatenate([_ConvNorm(row, name=row.name)(x) for row in step], -1)
        elif step == REDUCE:
            x = nn.max_pool(x, _SQUARE, (2, 2))
        elif step == MAXIMUM:
            x = nn.max_pool(x, _SQUARE, padding=_EDGE)
        else:
            x = nn.avg_pool(x, _SQUARE, padding=_EDGE, count_include_pad=False)
    return x


class _Block(nn.Module):
    branches: tuple

    @nn.compact
    def __call__(self, x):
        return jnp.concatenate([_run(steps, x) for steps in self.branches], -1)


class Inception(nn.Module):
    """Pictures [B, H, W, 3] in [-1, 1], at least 75 px -> features [B, 2048]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Pictures [B, H, W, 3] in [-1, 1] -> features [B, 2048]."""
        x = _run(STEM, x)
        for name, branches in BLOCKS.items():
            x = _Block(branches, name=name)(x)
        return x.mean((1, 2))


def convert(state: dict[str, np.ndarray]) -> dict:
    """pytorch-fid's state dict, name -> array -> variables of `Inception`.

    Raises:
      ValueError: a key is missing, of another shape, or unknown.
    """
    params, stats = {}, {}
    with Keys(state, ["fc.*"], "the checkpoint of FID's Inception") as keys:

        def read(steps, channels, above, params, stats):
            """Fills the two dicts; returns the channels that leave the chain."""
            for step in steps:
                rows = (step,) if isinstance(step, Conv) else step
                if isinstance(rows, str):
                    continue
                for row in rows:
                    key = f"{above}{row.name}"
                    conv = keys.conv(
                        f"{key}.conv", bias=False, shape=(row.features, channels, *row.kernel)
                    )
                    norm, running = keys.batch_norm(f"{key}.bn")
                    params[row.name] = {"conv": conv, "bn": norm}
                    stats[row.name] = {"bn": running}
                channels = sum(row.features for row in rows)
            return channels

        channels = read(STEM, 3, "", params, stats)
        for name, branches in BLOCKS.items():
            params[name], stats[name] = {}, {}
            channels = sum(
                read(steps, channels, f"{name}.", params[name], stats[name]) for steps in branches
            )
    return {"params": params, "batch_stats": stats}


def load(path: os.PathLike | str) -> dict:
    """Variables from `pt_inception-2015-12-05-6726825d.pth` or from our converted npz."""
    return variables_lib.load(path, convert)


@jax.jit
def features(variables: dict, pictures: jax.Array | np.ndarray) -> jax.Array:
    """What FID compares.

    Args:
      variables: from `load`.
      pictures: RGB [B, H, W, 3] in [0, 1].

    Returns:
      [B, 2048] float32, none negative.
    """
    if pictures.ndim != 4 or pictures.shape[-1] != 3:
        raise ValueError(f"pictures have shape {pictures.shape}; expected RGB [B, H, W, 3]")
    if not jnp.issubdtype(pictures.dtype, jnp.floating):
        raise ValueError(f"pictures are {pictures.dtype}; expected floats in [0, 1]: divide by 255")
    shape = (len(pictures), SIZE, SIZE, 3)
    resized = jax.image.resize(pictures, shape, "bilinear", antialias=False)
    return cast(jax.Array, Inception().apply(variables, 2.0 * resized.astype(jnp.float32) - 1.0))
