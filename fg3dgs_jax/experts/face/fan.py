"""FAN (2D-4), the 68 landmarks with which the field measures LMD.

Four hourglasses, each correcting the one before, draw a 64 x 64 heat map for every landmark on a
face cut out by a detector's box. A landmark is its map's brightest cell, moved a quarter of a cell
towards the brighter neighbour, brought back to the picture and, as the original does, truncated to
whole pixels: figures made with it are quantised so.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax.weights import variables as variables_lib
from fg3dgs_jax.weights.keys import Keys

LANDMARKS = 68
LIPS = slice(48, 68)  # outer and inner
FACE_SIZE, MAP_SIZE = 256, 64  # px
STACKS, DEPTH, FEATURES = 4, 4, 256
_BOX_SUM = 195.0  # width + height of a box of scale 1, whose face is cut out 200 px wide
_FACE_SIDE = 200.0
_RAISE = 0.12  # of the box's height, from its centre to the face's
_PRECISION = jax.lax.Precision.HIGHEST
# The blocks before the hourglasses: name, channels in, out.
_BASE = (("conv2", 64, 128), ("conv3", 128, 128), ("conv4", 128, FEATURES))


def _conv(features, kernel, name, bias=True, stride=1):
    sides = [(kernel // 2, kernel // 2)] * 2
    return nn.Conv(
        features, (kernel,) * 2, stride, sides, use_bias=bias, precision=_PRECISION, name=name
    )


def _norm_relu(x, name):
    return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=1e-5, name=name)(x))


def _halve(x):
    return nn.avg_pool(x, (2, 2), (2, 2))


class Block(nn.Module):
    """Three convolutions in a row, each normalised before, their outputs side by side, plus x."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] -> [B, H, W, features]."""
        parts, part = [], x
        for i, share in enumerate((2, 4, 4), 1):
            conv = _conv(self.features // share, 3, f"conv{i}", bias=False)
            part = conv(_norm_relu(part, f"bn{i}"))
            parts.append(part)
        if x.shape[-1] != self.features:
            x = _conv(self.features, 1, "skip", bias=False)(_norm_relu(x, "skip_bn"))
        return jnp.concatenate(parts, -1) + x


class Hourglass(nn.Module):
    """[B, H, W, 256] -> the same, seen at H down to H / 2**depth pixels."""

    depth: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, 256] -> the same shape."""
        return self._level(self.depth, x)

    def _level(self, level, x):
        low = Block(FEATURES, name=f"b2_{level}")(_halve(x))
        low = (
            self._level(level - 1, low)
            if level > 1
            else Block(FEATURES, name=f"b2_plus_{level}")(low)
        )
        low = Block(FEATURES, name=f"b3_{level}")(low)
        return Block(FEATURES, name=f"b1_{level}")(x) + low.repeat(2, 1).repeat(2, 2)


class FAN(nn.Module):
    """RGB faces [B, 256, 256, 3] in [0, 1] -> heat maps [B, 64, 64, 68] of the last hourglass."""

    stacks: int = STACKS

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """RGB faces [B, 256, 256, 3] in [0, 1] -> heat maps [B, 64, 64, 68]."""
        x = _norm_relu(_conv(64, 7, "conv1", stride=2)(x), "bn1")
        for name, _, features in _BASE:
            x = Block(features, name=name)(x)
            x = _halve(x) if name == "conv2" else x
        for i in range(self.stacks):
            y = Block(FEATURES, name=f"top_m_{i}")(Hourglass(DEPTH, name=f"m{i}")(x))
            y = _norm_relu(_conv(FEATURES, 1, f"conv_last{i}")(y), f"bn_end{i}")
            maps = _conv(LANDMARKS, 1, f"l{i}")(y)
            if i + 1 < self.stacks:
                x = x + _conv(FEATURES, 1, f"bl{i}")(y) + _conv(FEATURES, 1, f"al{i}")(maps)
        return maps  # pyright: ignore[reportPossiblyUnboundVariable]  # there is one stack or more


def convert(state: dict[str, np.ndarray], stacks: int = STACKS) -> dict:
    """2DFAN4's torch state dict, name -> array -> {"params", "batch_stats"}.

    Raises:
      ValueError: a key is missing, of another shape, or unknown.
    """
    params, stats = {}, {}
    with Keys(state, source="the checkpoint of FAN") as keys:
        params["conv1"] = keys.conv("conv1", shape=(64, 3, 7, 7))
        params["bn1"], stats["bn1"] = keys.batch_norm("bn1")
        for name, inputs, features in _BASE:
            params[name], stats[name] = _block(keys, name, inputs, features)
        for i in range(stacks):
            params[f"m{i}"], stats[f"m{i}"] = {}, {}
            for name in _hourglass_blocks():
                block = _block(keys, f"m{i}.{name}", FEATURES, FEATURES)
                params[f"m{i}"][name], stats[f"m{i}"][name] = block
            block = _block(keys, f"top_m_{i}", FEATURES, FEATURES)
            params[f"top_m_{i}"], stats[f"top_m_{i}"] = block
            params[f"bn_end{i}"], stats[f"bn_end{i}"] = keys.batch_norm(f"bn_end{i}")
            shapes = {"conv_last": (FEATURES, FEATURES), "l": (LANDMARKS, FEATURES)}
            if i + 1 < stacks:
                shapes |= {"bl": (FEATURES, FEATURES), "al": (FEATURES, LANDMARKS)}
            for name, shape in shapes.items():
                params[f"{name}{i}"] = keys.conv(f"{name}{i}", shape=(*shape, 1, 1))
    return {"params": params, "batch_stats": stats}


def _hourglass_blocks():
    levels = range(1, DEPTH + 1)
    return [f"b{k}_{level}" for k in (1, 2, 3) for level in levels] + ["b2_plus_1"]


def _block(keys, name, inputs, features):
    """Params and batch statistics of one `Block`."""
    params, stats, channels = {}, {}, inputs
    for i, share in enumerate((2, 4, 4), 1):
        shape = (features // share, channels, 3, 3)
        params[f"conv{i}"] = keys.conv(f"{name}.conv{i}", bias=False, shape=shape)
        params[f"bn{i}"], stats[f"bn{i}"] = keys.batch_norm(f"{name}.bn{i}")
        channels = features // share
    if inputs != features:
        shape = (features, inputs, 1, 1)
        params["skip"] = keys.conv(f"{name}.downsample.2", bias=False, shape=shape)
        params["skip_bn"], stats["skip_bn"] = keys.batch_norm(f"{name}.downsample.0")
    return params, stats


def load(path: os.PathLike | str) -> dict:
    """The variables in `2DFAN4-11f355bf06.pth.tar`, or in our npz of it."""
    return variables_lib.load(path, convert)


class Window(NamedTuple):
    """The square of a picture that FAN looks at."""

    centre: np.ndarray  # float64 [2] px, x and y
    side: float  # px

    def to_picture(self, points: Sequence[float] | np.ndarray, size: float) -> np.ndarray:
        """Points [..., 2] of a map of `size` cells a side -> whole px, truncated towards 0."""
        scaled = np.asarray(points, np.float64) * (self.side / size)
        return np.trunc(scaled + self.centre - self.side / 2).astype(np.int64)


def window(box: np.ndarray) -> Window:
    """Where the face of an S3FD box (x0, y0, x1, y1 px) is: a little higher, and wider."""
    x0, y0, x1, y1 = (float(v) for v in np.asarray(box)[:4])
    if not (np.isfinite([x0, y0, x1, y1]).all() and x1 - x0 >= 1 and y1 - y0 >= 1):
        raise ValueError(f"the face's box is {[x0, y0, x1, y1]}; expected x0, y0, x1, y1 in px")
    centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2 - _RAISE * (y1 - y0)])
    return Window(centre, _FACE_SIDE * (x1 - x0 + y1 - y0) / _BOX_SUM)


def crop(frame: np.ndarray, view: Window) -> np.ndarray:
    """uint8 [H, W, 3] -> uint8 [256, 256, 3], black where the picture ends; bilinear.

    The window's corners are those of cells 1 and 256, as the original has it: the face is cut one
    cell of 256 too small at its upper left.
    """
    low, high = (view.to_picture([k, k], FACE_SIZE) for k in (1, FACE_SIZE))
    size = np.array(frame.shape[1::-1])
    first, last = np.maximum(low, 0), np.minimum(high, size)
    if (last <= first).any():
        raise ValueError(
            f"a face's window of {view.side:.0f} px about {view.centre.round().tolist()} is not in "
            f"the picture of {size[0]} x {size[1]} px; expected a box in px of the frame"
        )
    face = np.zeros((high[1] - low[1], high[0] - low[0], 3), np.uint8)
    into, out_of = first - low, last - low
    face[into[1] : out_of[1], into[0] : out_of[0]] = frame[first[1] : last[1], first[0] : last[0]]
    return cv2.resize(face, (FACE_SIZE, FACE_SIZE))


def decode(maps: jax.Array | np.ndarray, view: Window) -> np.ndarray:
    """Heat maps [64, 64, N] -> int64 [N, 2] landmarks (x, y) in whole px of the picture."""
    maps = np.asarray(maps)
    height, width, count = maps.shape
    row, column = np.divmod(maps.reshape(-1, count).argmax(0), width)
    inner = (row > 0) & (row < height - 1) & (column > 0) & (column < width - 1)
    r, c, n = np.clip(row, 1, height - 2), np.clip(column, 1, width - 2), np.arange(count)
    across, down = maps[r, c + 1, n] - maps[r, c - 1, n], maps[r + 1, c, n] - maps[r - 1, c, n]
    cells = np.stack([column, row]) + 0.5 + 0.25 * np.sign([across, down]) * inner
    return view.to_picture(cells.T, height)


def landmarks(variables: dict, frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The 68 landmarks of one face.

    Args:
      variables: from `convert` or `load`.
      frame: uint8 RGB [H, W, 3].
      box: x0, y0, x1, y1 px, as `s3fd.detect` finds it; more columns are ignored.

    Returns:
      int64 [68, 2] (x, y) px, the usual order: jaw, brows, nose, eyes, `LIPS`.
    """
    frame = np.asarray(frame)
    if frame.ndim != 3 or frame.shape[-1] != 3 or frame.dtype != np.uint8:
        raise ValueError(f"picture is {frame.dtype} {frame.shape}; expected uint8 RGB [H, W, 3]")
    view = window(box)
    face = crop(frame, view)[None].astype(np.float32) / np.float32(255)
    return decode(np.asarray(_run(variables, face))[0], view)


@jax.jit
def _run(variables, faces):
    stacks = sum(name.startswith("conv_last") for name in variables["params"])
    return FAN(stacks).apply(variables, faces)
