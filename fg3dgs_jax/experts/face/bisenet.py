"""BiSeNet on CelebAMask-HQ (face-parsing.PyTorch): a face's 19 classes, pixel by pixel, in Flax.

A ResNet-18 looks at 1/8, 1/16 and 1/32 of the size. The two coarse maps, each weighted by its own
channel attention, flow back to 1/8, where they are fused with the fine one.

The published weights were trained on CelebAMask-HQ, which may be used for non-commercial research
only, and are not part of this project.
"""

import functools
import os
from collections.abc import Iterator
from typing import Any, cast

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax.experts.face import conv_norm, pil_resize
from fg3dgs_jax.experts.face.conv_norm import PRECISION, ConvNorm, conv
from fg3dgs_jax.weights import variables
from fg3dgs_jax.weights.keys import Keys

SIZE = 512  # px, each way: what the network was trained on
STRIDE = 32  # px: sizes must be multiples of it
CLASSES = (
    "background",
    "skin",
    "left_brow",
    "right_brow",
    "left_eye",
    "right_eye",
    "glasses",
    "left_ear",
    "right_ear",
    "earring",
    "nose",
    "mouth",
    "upper_lip",
    "lower_lip",
    "neck",
    "necklace",
    "cloth",
    "hair",
    "hat",
)
_WIDTHS = (64, 128, 256, 512)  # of the trunk's stages, two blocks each
_CONTEXT, _FUSED, _SQUEEZED = 128, 256, 64
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # ImageNet's, of pictures in [0, 1]
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
_AUXILIARY = ("conv_out16.*", "conv_out32.*")  # heads that only training uses


class _Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, which is a convolution where the shape changes."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x):
        y = nn.relu(ConvNorm(self.features, 3, self.stride, name="first")(x))
        y = ConvNorm(self.features, 3, name="second")(y)
        if x.shape != y.shape:
            x = ConvNorm(self.features, 1, self.stride, name="shortcut")(x)
        return nn.relu(x + y)


class _Attended(nn.Module):
    """3 x 3 convolution to the context's width, its channels weighted by their own means."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(ConvNorm(_CONTEXT, 3, name="conv")(x))
        return x * nn.sigmoid(ConvNorm(_CONTEXT, 1, name="attention")(_mean(x)))


class BiSeNet(nn.Module):
    """Normalised RGB [B, H, W, 3], H and W multiples of 32 -> logits [B, H, W, 19]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalised RGB [B, H, W, 3] -> logits [B, H, W, 19]."""
        height, width = x.shape[1:3]
        x = nn.relu(ConvNorm(64, 7, 2, name="stem")(x))
        x = nn.max_pool(x, (3, 3), (2, 2), [(1, 1)] * 2)  # pyright: ignore[reportArgumentType]  # flax leaves it untyped
        maps = []
        for i, features in enumerate(_WIDTHS):
            x = _Block(features, 2 if i else 1, name=f"stage{i}_0")(x)
            x = _Block(features, 1, name=f"stage{i}_1")(x)
            maps.append(x)
        _, fine, middle, coarse = maps
        x = _Attended(name="attended32")(coarse)
        x = x + nn.relu(ConvNorm(_CONTEXT, 1, name="average")(_mean(coarse)))
        x = nn.relu(ConvNorm(_CONTEXT, 3, name="up32")(_twice(x)))
        x = x + _Attended(name="attended16")(middle)
        x = nn.relu(ConvNorm(_CONTEXT, 3, name="up16")(_twice(x)))
        x = jnp.concatenate([fine, x], -1)
        x = nn.relu(ConvNorm(_FUSED, 1, name="fusion")(x))
        squeezed = nn.relu(conv(_SQUEEZED, 1, bias=False, name="squeeze")(_mean(x)))
        x = x + x * nn.sigmoid(conv(_FUSED, 1, bias=False, name="excite")(squeezed))
        x = nn.relu(ConvNorm(_FUSED, 3, name="head")(x))
        x = conv(len(CLASSES), 1, bias=False, name="classifier")(x)
        return _stretch(x, height, width)


def convert(state: dict[str, np.ndarray]) -> dict:
    """The torch state dict, name -> array -> variables of `BiSeNet`.

    The two heads that only training uses may be there or not; they are left out.

    Raises:
      ValueError: another key is missing, of another shape, or unknown.
    """
    params, stats = {}, {}
    with Keys(state, _AUXILIARY, "the checkpoint of BiSeNet") as keys:
        for block, part, *row in _rows():
            leaves = conv_norm.read(keys, *row)
            for tree, leaf in zip((params, stats), leaves, strict=True):
                if part:
                    tree.setdefault(block, {})[part] = leaf
                else:
                    tree[block] = leaf
        for name, key, outputs, inputs in (
            ("squeeze", "ffm.conv1", _SQUEEZED, _FUSED),
            ("excite", "ffm.conv2", _FUSED, _SQUEEZED),
            ("classifier", "conv_out.conv_out", len(CLASSES), _FUSED),
        ):
            params[name] = keys.conv(key, bias=False, shape=(outputs, inputs, 1, 1))
    return {"params": params, "batch_stats": stats}


def _rows() -> Iterator[tuple[Any, ...]]:
    """Each `ConvNorm`: its block and part here; conv, norm, outputs, inputs, kernel there."""
    trunk = "cp.resnet"
    yield "stem", None, f"{trunk}.conv1", f"{trunk}.bn1", _WIDTHS[0], 3, 7
    before = _WIDTHS[0]
    for i, width in enumerate(_WIDTHS):
        for k in (0, 1):
            block, key = f"stage{i}_{k}", f"{trunk}.layer{i + 1}.{k}"
            yield block, "first", f"{key}.conv1", f"{key}.bn1", width, before, 3
            yield block, "second", f"{key}.conv2", f"{key}.bn2", width, width, 3
            if before != width:
                short = f"{key}.downsample"
                yield block, "shortcut", f"{short}.0", f"{short}.1", width, before, 1
            before = width
    for stride, width in ((32, _WIDTHS[3]), (16, _WIDTHS[2])):
        arm, block = f"cp.arm{stride}", f"attended{stride}"
        yield block, "conv", f"{arm}.conv.conv", f"{arm}.conv.bn", _CONTEXT, width, 3
        yield block, "attention", f"{arm}.conv_atten", f"{arm}.bn_atten", _CONTEXT, _CONTEXT, 1
    for block, key, *shape in (
        ("average", "cp.conv_avg", _CONTEXT, _WIDTHS[3], 1),
        ("up32", "cp.conv_head32", _CONTEXT, _CONTEXT, 3),
        ("up16", "cp.conv_head16", _CONTEXT, _CONTEXT, 3),
        ("fusion", "ffm.convblk", _FUSED, _WIDTHS[1] + _CONTEXT, 1),
        ("head", "conv_out.conv", _FUSED, _FUSED, 3),
    ):
        yield block, None, f"{key}.conv", f"{key}.bn", *shape


def load(path: os.PathLike | str) -> dict:
    """The variables in the published `79999_iter.pth`, or in our converted npz."""
    return variables.load(path, convert)


@jax.jit
def logits(weights: dict, pictures: jax.Array | np.ndarray) -> jax.Array:
    """uint8 RGB [B, H, W, 3], H and W multiples of 32 -> logits [B, H, W, 19] of `CLASSES`."""
    shape = pictures.shape
    if len(shape) != 4 or shape[-1] != 3 or any(n % STRIDE for n in shape[1:3]):
        raise ValueError(
            f"pictures have shape {shape}; expected RGB [B, H, W, 3], H and W multiples of {STRIDE}"
        )
    x = (pictures.astype(jnp.float32) / 255 - _MEAN) / _DEVIATION
    return cast(jax.Array, BiSeNet().apply(weights, x))


def parse(weights: dict, frames: np.ndarray) -> np.ndarray:
    """The class of each pixel, as the published program finds it.

    Args:
      weights: from `load` or `convert`.
      frames: uint8 RGB [B, H, W, 3] of any size, or one frame [H, W, 3]. Resized to 512 x 512 as
        Pillow does, and the classes back by nearest neighbour between pixel centres.

    Returns:
      uint8 [B, H, W] (or [H, W]): places in `CLASSES`. Which of a pair is left and which right is
      the network's word; see `preprocessing/label/from_networks.py` for what to make of it.
    """
    return _at_512(weights, frames, lambda maps, size: _back(np.asarray(maps[0]), size))


def segment(weights: dict, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each pixel is if it is the person at all, and how sure the network is that it is.

    Args:
      weights: as for `parse`.
      frames: as for `parse`.

    Returns:
      parts: uint8 [B, H, W] (or [H, W]), the likeliest class but background: 1 to 18.
      person: float32 likewise, 1 - the probability of background.
    """

    def back(maps, size):
        _, parts, person = map(np.asarray, maps)
        grown = [cv2.resize(p, size[::-1], interpolation=cv2.INTER_LINEAR) for p in person]
        return _back(parts, size), np.stack(grown)

    return _at_512(weights, frames, back)


def _at_512(weights, frames, back):
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim not in (3, 4) or frames.shape[-1] != 3:
        raise ValueError(
            f"frames are {frames.dtype} {frames.shape}; expected uint8 RGB [B, H, W, 3]"
        )
    batch = frames if frames.ndim == 4 else frames[None]
    result = back(_decide(weights, pil_resize.bilinear(batch, SIZE, SIZE)), batch.shape[1:3])
    return result if frames.ndim == 4 else jax.tree.map(lambda x: x[0], result)


@jax.jit
def _decide(weights, pictures):
    scores = logits(weights, pictures)
    parts = 1 + jnp.argmax(scores[..., 1:], -1)
    person = 1 - nn.softmax(scores)[..., 0]
    return jnp.argmax(scores, -1).astype(jnp.uint8), parts.astype(jnp.uint8), person


def _back(labels, size):
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip(size, labels.shape[1:], strict=True)
    )
    return labels[:, rows[:, None], columns]


def _mean(x):
    return jnp.mean(x, (1, 2), keepdims=True)


def _twice(x):
    return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)


def _stretch(x, height, width):
    """Bilinear with the corners' centres kept in place (torch's align_corners=True)."""
    down, across = _stretcher(x.shape[1], height), _stretcher(x.shape[2], width)
    product = functools.partial(jnp.einsum, precision=PRECISION)
    return product("yh,bhxc->byxc", down, product("xw,bhwc->bhxc", across, x))


def _stretcher(old, new):
    """Weights [new, old]."""
    places = np.linspace(0, old - 1, new)
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(old))).astype(np.float32)
