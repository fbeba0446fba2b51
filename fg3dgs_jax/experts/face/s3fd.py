"""S3FD, the face detector in front of SyncNet's score, of FAN and of Wav2Lip's crops.

One network, published twice with other names, other weights and two layers that differ:

| | `PYTHON_FAN` (face_alignment; `WAV2LIP` is the same file) | `SYNCNET` (syncnet_python) |
|---|---|---|
| file | s3fd-619a316812.pth | sfd_face.pth |
| fc6 | padding 3 | padding 6, dilation 6 |
| third pooling | drops an odd last row | keeps it |
| picture | BGR (Wav2Lip: RGB) minus 104, 117, 123 | a quarter the size, RGB minus 123, 117, 104 |
| faces | score above 0.5 | score above 0.9 |

The variables remember which of the two they are: `detect` needs no telling.
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

MIN_SIZE = 32  # px each way, as the network sees the picture; below it the fourth map is empty
STRIDES = (4, 8, 16, 32, 64, 128)  # px between the anchors of each map, which are 4 strides wide
_PRECISION = jax.lax.Precision.HIGHEST
_VARIANCES = 0.1, 0.2  # by which centres and logarithms of sizes were scaled in training
_CANDIDATE = 0.05  # score from which a box takes part in the suppression

# name, number in SyncNet's `vgg`, features
_TRUNK = (
    (("conv1_1", 0, 64), ("conv1_2", 2, 64)),
    (("conv2_1", 5, 128), ("conv2_2", 7, 128)),
    (("conv3_1", 10, 256), ("conv3_2", 12, 256), ("conv3_3", 14, 256)),
    (("conv4_1", 17, 512), ("conv4_2", 19, 512), ("conv4_3", 21, 512)),
    (("conv5_1", 24, 512), ("conv5_2", 26, 512), ("conv5_3", 28, 512)),
)  # a max-pooling after each row
_FC6, _FC7 = ("fc6", 31, 1024), ("fc7", 33, 1024)
# name, features, kernel, stride
_EXTRAS = (
    ("conv6_1", 256, 1, 1),
    ("conv6_2", 512, 3, 2),
    ("conv7_1", 128, 1, 1),
    ("conv7_2", 256, 3, 2),
)
_NORMED = ("conv3_3", "conv4_3", "conv5_3")
_HEADS = (*_NORMED, "fc7", "conv6_2", "conv7_2")  # maps that are looked at, stride by stride
_CHANNELS = (256, 512, 512, 1024, 512, 256)
# The finest map scores three kinds of background, of which the strongest counts.
_SCORES = (4, 2, 2, 2, 2, 2)


class Variant(NamedTuple):
    """What differs between the published detectors."""

    name: str  # of the weights
    dilation: int  # of fc6
    padding: int  # of fc6
    ceil_pool: bool  # the third pooling keeps an odd last row and column
    bgr: bool
    mean: tuple[float, float, float]  # in the order of the channels
    scale: float  # of the picture
    overlaps: tuple[float, ...]  # largest intersection over union of two boxes, in turns
    pixel: float  # added to widths when overlaps are measured
    keep: float  # score


PYTHON_FAN = Variant("python_fan", 1, 3, False, True, (104, 117, 123), 1.0, (0.3,), 1.0, 0.5)
WAV2LIP = PYTHON_FAN._replace(bgr=False)
SYNCNET = Variant("syncnet", 6, 6, True, False, (123, 117, 104), 0.25, (0.3, 0.1), 0.0, 0.9)
VARIANTS = {variant.name: variant for variant in (PYTHON_FAN, SYNCNET)}


class S3FD(nn.Module):
    """[B, H, W, 3] -> for each of six maps (scores [B, h, w, 2], boxes [B, h, w, 4]), raw."""

    dilation: int
    padding: int
    ceil_pool: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        """Pictures [B, H, W, 3] -> (scores, boxes) of six maps."""
        maps = {}
        for i, row in enumerate(_TRUNK):
            for name, _, features in row:
                x = maps[name] = nn.relu(_conv(name, features, 3, padding=1)(x))
            odd = [size % 2 if self.ceil_pool and i == 2 else 0 for size in x.shape[1:3]]
            x = nn.max_pool(x, (2, 2), (2, 2), [(0, more) for more in odd])  # pyright: ignore[reportArgumentType]  # flax leaves it untyped
        fc6 = _conv("fc6", 1024, 3, padding=self.padding, kernel_dilation=self.dilation)
        x = maps["fc7"] = nn.relu(_conv("fc7", 1024, 1)(nn.relu(fc6(x))))
        for name, features, kernel, stride in _EXTRAS:
            conv = _conv(name, features, kernel, padding=kernel // 2, strides=stride)
            x = maps[name] = nn.relu(conv(x))
        outputs = []
        for name, scores in zip(_HEADS, _SCORES, strict=True):
            x = maps[name]
            if name in _NORMED:
                scale = self.param(f"{name}_norm", nn.initializers.ones, x.shape[-1:])
                x = x / (jnp.sqrt(jnp.sum(x**2, -1, keepdims=True)) + 1e-10) * scale
            score = _conv(f"{name}_score", scores, 3, padding=1)(x)
            background = jnp.max(score[..., :-1], -1, keepdims=True)
            score = jnp.concatenate([background, score[..., -1:]], -1)
            outputs.append((score, _conv(f"{name}_box", 4, 3, padding=1)(x)))
        return outputs


def _conv(name, features, kernel, padding=0, **options):
    sides = [(padding, padding)] * 2
    shape = (kernel, kernel)
    return nn.Conv(features, shape, padding=sides, precision=_PRECISION, name=name, **options)


def convert(state: dict[str, np.ndarray]) -> dict:
    """Either variant's torch state dict -> {"params": {the variant's name: parameters}}.

    Raises:
      ValueError: a key is missing, of another shape, or unknown.
    """
    syncnet = any(key.removeprefix("module.").startswith("vgg.") for key in state)
    variant, names = (SYNCNET, _syncnet_keys()) if syncnet else (PYTHON_FAN, _python_fan_keys())
    params, channels = {}, 3
    with Keys(state, source=f"the checkpoint of S3FD ({variant.name})") as keys:
        for name, _, features in (*sum(_TRUNK, ()), _FC6, _FC7):
            kernel = 1 if name == "fc7" else 3
            params[name] = keys.conv(names[name], shape=(features, channels, kernel, kernel))
            channels = features
        for name, features, kernel, _ in _EXTRAS:
            params[name] = keys.conv(names[name], shape=(features, channels, kernel, kernel))
            channels = features
        for name, channels, scores in zip(_HEADS, _CHANNELS, _SCORES, strict=True):
            if name in _NORMED:
                params[f"{name}_norm"] = keys.take(names[f"{name}_norm"], (channels,))
            for part, features in (("score", scores), ("box", 4)):
                key = f"{name}_{part}"
                params[key] = keys.conv(names[key], shape=(features, channels, 3, 3))
    return {"params": {variant.name: params}}


def _python_fan_keys():
    names = {name: name for name, *_ in (*sum(_TRUNK, ()), _FC6, _FC7, *_EXTRAS)}
    for name in _HEADS:
        above = f"{name}_norm" if name in _NORMED else name
        names |= {f"{name}_score": f"{above}_mbox_conf", f"{name}_box": f"{above}_mbox_loc"}
        names[f"{name}_norm"] = f"{name}_norm.weight"
    return names


def _syncnet_keys():
    names = {name: f"vgg.{i}" for name, i, _ in (*sum(_TRUNK, ()), _FC6, _FC7)}
    names |= {name: f"extras.{i}" for i, (name, *_) in enumerate(_EXTRAS)}
    for i, name in enumerate(_HEADS):
        names |= {f"{name}_score": f"conf.{i}", f"{name}_box": f"loc.{i}"}
        names[f"{name}_norm"] = f"L2Norm{name.removeprefix('conv')}.weight"
    return names


def load(path: os.PathLike | str) -> dict:
    """The variables in either published file, or in our npz of one."""
    return variables_lib.load(path, convert)


def variant_of(variables: dict) -> Variant:
    """Which of the two published detectors the variables are."""
    names = list(variables["params"])
    if len(names) != 1 or names[0] not in VARIANTS:
        raise ValueError(
            f"variables are of {', '.join(names)[:80]!r}; expected those of an S3FD: "
            f"{' or '.join(VARIANTS)}"
        )
    return VARIANTS[names[0]]


def detect(variables: dict, frame: np.ndarray, variant: Variant | None = None) -> np.ndarray:
    """Faces of one picture, best first.

    Args:
      variables: from `convert` or `load`.
      frame: uint8 RGB [H, W, 3].
      variant: None for that of the weights; `WAV2LIP` to see what Wav2Lip saw with them.

    Returns:
      float32 [N, 5]: x0, y0, x1, y1 in px of the frame, score; N may be 0.

    Raises:
      ValueError: another shape, or a picture below 32 px (SyncNet's: 128 px) on a side.
    """
    frame, variant = np.asarray(frame), variant or variant_of(variables)
    if frame.ndim != 3 or frame.shape[-1] != 3 or frame.dtype != np.uint8:
        raise ValueError(
            f"the picture is {frame.dtype} {frame.shape}; expected uint8 RGB [H, W, 3]"
        )
    height, width = frame.shape[:2]
    if variant.scale != 1.0:
        frame = cv2.resize(frame, (0, 0), fx=variant.scale, fy=variant.scale)
    if min(frame.shape[:2]) < MIN_SIZE:
        least = round(MIN_SIZE / variant.scale)
        raise ValueError(
            f"the picture has {width} x {height} px; expected {least} or more each way"
        )
    settings = variant.dilation, variant.padding, variant.ceil_pool
    maps = _run(settings, variables["params"][variant.name], normalised(frame, variant)[None])
    boxes = decode([(np.asarray(s[0]), np.asarray(b[0])) for s, b in maps])
    boxes[:, :4] *= np.tile([width / frame.shape[1], height / frame.shape[0]], 2)
    for overlap in variant.overlaps:
        boxes = boxes[suppress(boxes, overlap, variant.pixel)]
    return boxes[boxes[:, 4] > variant.keep].astype(np.float32)


def normalised(frame: np.ndarray, variant: Variant) -> np.ndarray:
    """uint8 RGB [H, W, 3] -> float32, channels in the variant's order, minus their means."""
    channels = frame[..., ::-1] if variant.bgr else frame
    return channels.astype(np.float32) - np.asarray(variant.mean, np.float32)


def decode(maps: Sequence) -> np.ndarray:
    """What the network says -> float64 [N, 5]: x0, y0, x1, y1 px, score; of above 0.05 only.

    Args:
      maps: six of (scores [h, w, 2], boxes [h, w, 4]): offsets of the centre and logarithms of the
        size, in anchors 4 strides wide about the middle of each cell, by the variances.
    """
    boxes = []
    for stride, (scores, offsets) in zip(STRIDES, maps, strict=True):
        face = 1.0 / (1.0 + np.exp(scores[..., 0].astype(np.float64) - scores[..., 1]))
        rows, columns = np.nonzero(face > _CANDIDATE)
        offset, side = offsets[rows, columns].astype(np.float64), 4 * stride
        cells = np.stack([columns, rows], -1) * stride + stride / 2
        centre = cells + offset[:, :2] * _VARIANCES[0] * side
        half = side * np.exp(offset[:, 2:] * _VARIANCES[1]) / 2
        score = face[rows, columns][:, None]
        boxes.append(np.concatenate([centre - half, centre + half, score], -1))
    return np.concatenate(boxes)


def suppress(boxes: np.ndarray, overlap: float, pixel: float = 0.0) -> np.ndarray:
    """Which of `boxes` [N, 5] remain, best first, when each drops the worse ones it overlaps.

    Args:
      boxes: x0, y0, x1, y1 px, score.
      overlap: intersection over union up to which both boxes remain.
      pixel: added to every width and height, 1 where corners count as pixels.
    """
    low, high = boxes[:, :2], boxes[:, 2:4]
    area = np.prod(high - low + pixel, 1)
    left, kept = np.argsort(-boxes[:, 4], kind="stable"), []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        sides = np.minimum(high[best], high[left]) - np.maximum(low[best], low[left]) + pixel
        shared = np.prod(np.maximum(sides, 0.0), 1)
        left = left[shared <= overlap * (area[best] + area[left] - shared)]
    return np.array(kept, int)


def _forward(settings, params, pictures):
    return S3FD(*settings).apply({"params": params}, pictures)


_run = jax.jit(_forward, static_argnums=0)
