"""Our own lip-sync expert: do five frames of a mouth fit their sound?

It stands in for Wav2Lip's discriminator in eq. (16), whose weights are not free: anyone trains one
on clips of their own with `python -m fg3dgs_jax.lipsync fit`. Two small towers put
five frames of a mouth and the 200 ms of sound around the middle one on a unit sphere; the cosine,
calibrated on clips held out from training, is the probability that they belong together.

The score is this network's own. It is not LSE-C or LSE-D and cannot be compared with them, nor
between two networks that were trained on different clips.
"""

import os
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from fg3dgs_jax.clip.landmarks import EYE_CORNERS, NOSE_BASE, NOSE_BRIDGE
from fg3dgs_jax.weights import variables as variables_lib
from fg3dgs_jax.weights.formats.pickles import CheckpointError

NAME = "sync_expert"
FRAMES = 5  # a window, 200 ms at 25 frames a second
MIDDLE = FRAMES // 2
SIZE = 48  # px, the side of the mouth picture that the network sees
SOUND = (16, 80)  # mel columns (200 ms) and bands of a window, `windows.mel_windows`
EMBEDDING = 64
DROPOUT = 0.1
GREY = (0.299, 0.587, 0.114)  # of red, green and blue
_BELOW, _SIDE = 0.33, 1.15  # of the head's size: mouth under the nose base, side of its square
_CALM, _STILL = 6.0, 1.0  # frames, deviations of the Gaussians that smooth size and place


class MouthTower(nn.Module):
    """Standardised grey mouths [B, S, 48, 48] -> [B, S - 4, 64], one for five frames in a row.

    Every frame is looked at by itself, so a run of S frames costs S pictures, not 5 (S - 4).
    """

    @nn.compact
    def __call__(self, mouths: jax.Array, train: bool = False) -> jax.Array:
        """Mouths [B, S, 48, 48] -> [B, S - 4, 64]; `train` drops units."""
        batch, frames = mouths.shape[:2]
        drop = nn.Dropout(DROPOUT, deterministic=not train)
        x = mouths.reshape(batch * frames, *mouths.shape[2:], 1)
        for i, width in enumerate((16, 32, 64, 96)):
            x = nn.Conv(width, (3, 3), 2, [(1, 1), (1, 1)], name=f"conv_{i}")(x)
            x = nn.relu(nn.GroupNorm(8, name=f"norm_{i}")(x))
        x = nn.Dense(64, name="frame")(drop(x.reshape(batch, frames, -1)))
        count = frames - FRAMES + 1
        x = jnp.concatenate([x[:, k : k + count] for k in range(FRAMES)], -1)
        x = nn.relu(nn.LayerNorm(name="norm")(nn.Dense(128, name="window")(x)))
        return nn.Dense(EMBEDDING, name="out")(drop(x))


class SoundTower(nn.Module):
    """Standardised mel windows [..., 16, 80] -> [..., 64]."""

    @nn.compact
    def __call__(self, windows: jax.Array, train: bool = False) -> jax.Array:
        """Mel windows [..., 16, 80] -> [..., 64]; `train` drops units."""
        drop = nn.Dropout(DROPOUT, deterministic=not train)
        x = windows.reshape(-1, *SOUND)
        for i in range(3):
            x = nn.Conv(96, (3,), 2, [(1, 1)], name=f"conv_{i}")(x)
            x = nn.relu(nn.LayerNorm(name=f"norm_{i}")(x))
        x = nn.Dense(128, name="window")(drop(x.reshape(len(x), -1)))
        x = nn.relu(nn.LayerNorm(name="norm")(x))
        x = nn.Dense(EMBEDDING, name="out")(drop(x))
        return x.reshape(*windows.shape[:-2], EMBEDDING)


def init(
    key: jax.Array, sound_mean: jax.Array | np.ndarray, sound_deviation: jax.Array | np.ndarray
) -> dict:
    """Untrained variables; mean and deviation float [80] of the mel bands standardise the sound."""
    key_mouth, key_sound = jax.random.split(key)
    mouth = jax.jit(MouthTower().init)(key_mouth, jnp.zeros((1, FRAMES, SIZE, SIZE)))
    sound = jax.jit(SoundTower().init)(key_sound, jnp.zeros((1, *SOUND)))
    return {
        "mouth": mouth["params"],
        "sound": sound["params"],
        "log_scale": jnp.float32(2.3),  # training multiplies the cosines by exp of it
        "bands": {"mean": jnp.asarray(sound_mean), "deviation": jnp.asarray(sound_deviation)},
        "calibration": jnp.array([1.0, 0.0]),  # logit = slope * cosine + intercept
    }


def save(path: os.PathLike | str, variables: dict) -> None:
    """Writes an `.npz` that `load` reads."""
    variables_lib.save(path, variables)


def load(path: os.PathLike | str) -> dict:
    """Variables of a trained expert.

    Raises:
      ValueError: the file is not one that `lipsync fit` wrote for this version.
    """
    path = pathlib.Path(path)
    if path.suffix != ".npz" or not path.is_file():
        raise CheckpointError(
            f"{path} is not a trained expert; expected {NAME}.npz, which "
            "`python -m fg3dgs_jax.lipsync fit` writes"
        )
    variables = variables_lib.load(path, convert=None)
    expected = jax.eval_shape(lambda: init(jax.random.key(0), jnp.zeros(80), jnp.ones(80)))
    has, needs = _shapes(variables), _shapes(expected)
    wrong = sorted(k for k in has.keys() | needs.keys() if has.get(k) != needs.get(k))
    if wrong:
        raise CheckpointError(
            f"{path} does not fit at {', '.join(wrong[:3])} ({len(wrong)} places); expected an "
            "expert of this version: train it again with `python -m fg3dgs_jax.lipsync fit`"
        )
    return jax.tree.map(jnp.asarray, variables)


def mouth_boxes(points: np.ndarray) -> np.ndarray:
    """The square in which the network looks for the mouth.

    Hung from points that speech does not move and smoothed in time: a square that moved with the
    jaw would tell by itself what the mouth does.

    Args:
      points: [T, 478, 2] px, face-mesh landmarks.

    Returns:
      float32 [T, 4] px: x0, y0, x1, y1; may reach beyond the picture.
    """
    points = np.asarray(points, np.float64)
    # Of the points that speech does not move: outer eye corners, nose bridge, nose base.
    base, (right, left) = points[:, NOSE_BASE], (points[:, k] for k in EYE_CORNERS)
    nose = base - points[:, NOSE_BRIDGE]
    length = np.linalg.norm(nose, axis=-1)
    wide = np.linalg.norm(right - left, axis=-1)
    # Both, for a turned head shows its eyes closer together and a raised one its nose shorter.
    size = _smooth(np.hypot(wide, 1.75 * length)[:, None] / np.sqrt(2), _CALM)
    down = nose / np.maximum(length, 1e-6)[:, None]
    centre = _smooth(base + _BELOW * size * down, _STILL)
    half = size * _SIDE / 2
    return np.concatenate([centre - half, centre + half], 1).astype(np.float32)


def cut(
    pictures: jax.Array | np.ndarray, boxes: jax.Array | np.ndarray, size: int = SIZE
) -> jax.Array:
    """Boxes cut out of pictures and resized, averaging over what shrinks; differentiable.

    Args:
      pictures: [..., H, W, C].
      boxes: [..., 4] px: x0, y0, x1, y1; beyond the border its pixels go on.
      size: px, of the square results.

    Returns:
      [..., size, size, C].
    """
    height, width = pictures.shape[-3:-1]
    down = _resize_matrix(boxes[..., 1], boxes[..., 3], height, size)
    across = _resize_matrix(boxes[..., 0], boxes[..., 2], width, size)
    rows = jnp.einsum("...yh,...hwc->...ywc", down, pictures)
    return jnp.einsum("...xw,...ywc->...yxc", across, rows)


def standardise(mouths: Any) -> jax.Array:
    """RGB mouths [..., 48, 48, 3] in [0, 1] -> grey [..., 48, 48], mean 0 and deviation about 1.

    Each frame by itself: light and skin say nothing about speech.
    """
    return standardise_grey(mouths @ jnp.array(GREY))


def standardise_grey(grey: Any) -> jax.Array:
    """Grey mouths [..., 48, 48], each with mean 0 and deviation about 1."""
    mean = grey.mean((-2, -1), keepdims=True)
    return (grey - mean) / (grey.std((-2, -1), keepdims=True) + 0.05)


def embed_mouths(
    variables: dict, frames: jax.Array | np.ndarray, boxes: jax.Array | np.ndarray
) -> jax.Array:
    """Runs of RGB frames [B, S, H, W, 3] in [0, 1] and their boxes [B, S, 4] -> [B, S - 4, 64].

    Unit vectors; window v is of the frames v .. v + 4. Differentiable in the frames; the expert
    gets no gradient.
    """
    if frames.ndim != 5 or frames.shape[1] < FRAMES or frames.shape[-1] != 3:
        raise ValueError(
            f"frames have shape {frames.shape}; expected RGB [B, S, H, W, 3] with S >= {FRAMES}"
        )
    if not jnp.issubdtype(frames.dtype, jnp.floating):
        raise ValueError(f"frames are {frames.dtype}; expected floats in [0, 1]: divide by 255")
    return embed_cut_mouths(variables, cut(frames, jnp.asarray(boxes)))


def embed_cut_mouths(variables: dict, mouths: jax.Array | np.ndarray) -> jax.Array:
    """The same of mouths that `cut` has cut out, [B, S, 48, 48, 3] in [0, 1]."""
    params = jax.lax.stop_gradient(variables["mouth"])
    return unit(MouthTower().apply({"params": params}, standardise(mouths)))


def embed_sound(variables: dict, windows: jax.Array | np.ndarray) -> jax.Array:
    """Mel windows [..., 16, 80] in [-1, 1], of the middle frame of each window -> [..., 64]."""
    if windows.shape[-2:] != SOUND:
        raise ValueError(
            f"sound windows have shape {windows.shape}; expected [..., 16, 80], as "
            "media.windows.mel_windows gives"
        )
    variables = jax.lax.stop_gradient(variables)
    standard = standardise_sound(variables, jnp.asarray(windows))
    return unit(SoundTower().apply({"params": variables["sound"]}, standard))


def standardise_sound(variables: dict, windows: jax.Array | np.ndarray) -> jax.Array:
    """Mel windows, each band with mean 0 and deviation 1 over the training clips."""
    return (windows - variables["bands"]["mean"]) / variables["bands"]["deviation"]


def probability(variables: dict, cosines: jax.Array | np.ndarray) -> jax.Array:
    """Cosines [...] -> probability that picture and sound belong together."""
    return jax.nn.sigmoid(_logits(variables, cosines))


def sync_loss(
    variables: dict,
    frames: jax.Array | np.ndarray,
    boxes: jax.Array | np.ndarray,
    sound: jax.Array | np.ndarray,
) -> jax.Array:
    """How badly mouths fit the sound: mean of -log probability. Eq. (16) with our own expert.

    Args:
      variables: of the expert, which gets no gradient.
      frames: RGB [B, 5, H, W, 3] in [0, 1]; gradients go here.
      boxes: [B, 5, 4] px, from `mouth_boxes` of the true frames.
      sound: [B, 64] from `embed_sound`, which is worth keeping: it does not depend on the frames.
    """
    lips = embed_mouths(variables, frames, boxes)[:, 0]
    cosines = jnp.sum(lips * jax.lax.stop_gradient(sound), -1)
    return -jnp.mean(jax.nn.log_sigmoid(_logits(variables, cosines)))


def unit(x: Any) -> jax.Array:
    """Vectors [..., C] of length 1."""
    return x * jax.lax.rsqrt(jnp.sum(x**2, -1, keepdims=True) + 1e-8)


def _logits(variables, cosines):
    slope, intercept = jax.lax.stop_gradient(variables["calibration"])
    return slope * cosines + intercept


def _resize_matrix(start, stop, pixels, size):
    """Rows of weights [..., size, pixels] that resample start .. stop px to `size`.

    Triangles as wide as an output pixel, or as an input pixel where that is wider.
    """
    step = jnp.asarray(stop - start)[..., None] / size
    centre = jnp.asarray(start)[..., None] + (jnp.arange(size) + 0.5) * step - 0.5
    centre = jnp.clip(centre, 0.0, pixels - 1.0)[..., None]
    away = jnp.abs(centre - jnp.arange(pixels)) / jnp.maximum(step, 1.0)[..., None]
    weights = jnp.maximum(0.0, 1.0 - away)
    return weights / weights.sum(-1, keepdims=True)


def _smooth(values, deviation):
    """[T, C] convolved over time with a Gaussian, first and last row repeated outside."""
    reach = round(3 * deviation)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    padded = np.pad(values, ((reach, reach), (0, 0)), mode="edge")
    columns = [np.convolve(c, kernel / kernel.sum(), "valid") for c in padded.T]
    return np.stack(columns, 1)


def _shapes(tree):
    flat: dict[str, Any] = dict(traverse_util.flatten_dict(tree, sep="/"))
    return {key: value.shape for key, value in flat.items()}
