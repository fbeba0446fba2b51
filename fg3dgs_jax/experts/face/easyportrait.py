"""EasyPortrait's face parser in Flax: teeth, lips, eyes, brows and skin, at the picture's own size.

A feature pyramid (FPN) on a ResNet-50 with a stem of three convolutions (ResNetV1c), as mmseg
builds it. The talking-head family takes the teeth from it, which CelebAMask-HQ does not tell from
the rest of the mouth.

The published weights come under a variant of CC BY-SA 4.0 and are not part of this project.
"""

import os
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax.experts.face import conv_norm
from fg3dgs_jax.experts.face.conv_norm import ConvNorm, conv
from fg3dgs_jax.weights import variables
from fg3dgs_jax.weights.keys import Keys

CLASSES = (
    "background",
    "skin",
    "left_brow",
    "right_brow",
    "left_eye",
    "right_eye",
    "lips",
    "teeth",
)
TEETH = CLASSES.index("teeth")
_STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # width, blocks
_EXPANSION = 4
_STEM = (32, 32, 64)
_PYRAMID, _HEAD = 256, 128
_MEAN = np.array([143.55267, 132.96706, 126.94924], np.float32)  # RGB, 0..255
_DEVIATION = np.array([60.26253, 60.32740, 59.30989], np.float32)


class _Bottleneck(nn.Module):
    """1 x 1, 3 x 3 (which takes the stride), 1 x 1 to four times the width; beside a shortcut."""

    width: int
    stride: int

    @nn.compact
    def __call__(self, x):
        y = nn.relu(ConvNorm(self.width, 1, name="conv1")(x))
        y = nn.relu(ConvNorm(self.width, 3, self.stride, name="conv2")(y))
        y = ConvNorm(_EXPANSION * self.width, 1, name="conv3")(y)
        if x.shape != y.shape:
            x = ConvNorm(_EXPANSION * self.width, 1, self.stride, name="shortcut")(x)
        return nn.relu(x + y)


class EasyPortrait(nn.Module):
    """Normalised RGB [B, H, W, 3] of any size -> logits [B, H, W, 8]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalised RGB [B, H, W, 3] -> logits [B, H, W, 8]."""
        size = x.shape[1:3]
        for i, width in enumerate(_STEM):
            x = nn.relu(ConvNorm(width, 3, 1 if i else 2, name=f"stem{i}")(x))
        x = nn.max_pool(x, (3, 3), (2, 2), [(1, 1)] * 2)  # pyright: ignore[reportArgumentType]  # flax leaves it untyped
        levels = []
        for i, (width, blocks) in enumerate(_STAGES):
            for k in range(blocks):
                stride = 2 if i and not k else 1
                x = _Bottleneck(width, stride, name=f"stage{i}_{k}")(x)
            levels.append(conv(_PYRAMID, 1, name=f"lateral{i}")(x))
        for i in (2, 1, 0):
            levels[i] = levels[i] + _nearest(levels[i + 1], levels[i].shape[1:3])
        total = 0.0
        for i, level in enumerate(levels):
            x = conv(_PYRAMID, 3, name=f"pyramid{i}")(level)
            for k in range(max(1, i)):
                x = nn.relu(ConvNorm(_HEAD, 3, name=f"head{i}_{k}")(x))
                if i:
                    x = _bilinear(x, (2 * x.shape[1], 2 * x.shape[2]))
            total = total + _bilinear(x, levels[0].shape[1:3])
        return _bilinear(conv(len(CLASSES), 1, name="classifier")(total), size)


def convert(state: dict[str, np.ndarray]) -> dict:
    """State dict of mmseg, name -> array -> variables of `EasyPortrait`.

    Raises:
      ValueError: a key is missing, of another shape, or unknown.
    """
    params, stats = {}, {}
    with Keys(state, source="the checkpoint of EasyPortrait's FPN-ResNet50") as keys:
        inputs = 3
        for i, width in enumerate(_STEM):
            stem = "backbone.stem"
            leaves = conv_norm.read(
                keys, f"{stem}.{3 * i}", f"{stem}.{3 * i + 1}", width, inputs, 3
            )
            params[f"stem{i}"], stats[f"stem{i}"] = leaves
            inputs = width
        for i, (width, blocks) in enumerate(_STAGES):
            wide = _EXPANSION * width
            for k in range(blocks):
                key, name = f"backbone.layer{i + 1}.{k}", f"stage{i}_{k}"
                rows = [
                    ("conv1", "conv1", "bn1", width, inputs, 1),
                    ("conv2", "conv2", "bn2", width, width, 3),
                    ("conv3", "conv3", "bn3", wide, width, 1),
                ]
                if not k:
                    rows.append(("shortcut", "downsample.0", "downsample.1", wide, inputs, 1))
                params[name], stats[name] = {}, {}
                for part, theirs, norm, *shape in rows:
                    leaves = conv_norm.read(keys, f"{key}.{theirs}", f"{key}.{norm}", *shape)
                    params[name][part], stats[name][part] = leaves
                inputs = wide
            lateral, pyramid = f"neck.lateral_convs.{i}.conv", f"neck.fpn_convs.{i}.conv"
            params[f"lateral{i}"] = keys.conv(lateral, shape=(_PYRAMID, wide, 1, 1))
            params[f"pyramid{i}"] = keys.conv(pyramid, shape=(_PYRAMID, _PYRAMID, 3, 3))
            for k in range(max(1, i)):  # the odd numbers between are the upsamplers
                key = f"decode_head.scale_heads.{i}.{2 * k}"
                before = _HEAD if k else _PYRAMID
                leaves = conv_norm.read(keys, f"{key}.conv", f"{key}.bn", _HEAD, before, 3)
                params[f"head{i}_{k}"], stats[f"head{i}_{k}"] = leaves
        shape = (len(CLASSES), _HEAD, 1, 1)
        params["classifier"] = keys.conv("decode_head.conv_seg", shape=shape)
    return {"params": params, "batch_stats": stats}


def load(path: os.PathLike | str) -> dict:
    """The variables in the published `fpn-fp-512.pth`, or in our converted npz."""
    return variables.load(path, convert)


@jax.jit
def logits(weights: dict, frames: jax.Array | np.ndarray) -> jax.Array:
    """uint8 RGB [B, H, W, 3] -> logits [B, H, W, 8] of `CLASSES`, at the frames' own size."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != jnp.uint8:
        raise ValueError(
            f"frames are {frames.dtype} {frames.shape}; expected uint8 RGB [B, H, W, 3]"
        )
    return cast(
        jax.Array, EasyPortrait().apply(weights, (frames.astype(jnp.float32) - _MEAN) / _DEVIATION)
    )


@jax.jit
def parse(weights: dict, frames: jax.Array | np.ndarray) -> jax.Array:
    """The class of each pixel.

    Args:
      weights: from `load` or `convert`.
      frames: uint8 RGB [B, H, W, 3]. The weights were trained on faces in frames of about 512 x 512
        px; other sizes run, at their own scale.

    Returns:
      uint8 [B, H, W]: places in `CLASSES`.
    """
    return jnp.argmax(logits(weights, frames), -1).astype(jnp.uint8)


def _nearest(x, size):
    """Nearest neighbour as torch takes it: the pixel at floor(i old / new)."""
    rows, columns = (np.arange(n) * old // n for n, old in zip(size, x.shape[1:3], strict=True))
    return x[:, rows][:, :, columns]


def _bilinear(x, size):
    """As torch with align_corners=False: no smoothing when shrinking."""
    if x.shape[1:3] == tuple(size):
        return x
    return jax.image.resize(x, (x.shape[0], *size, x.shape[3]), "bilinear", antialias=False)
