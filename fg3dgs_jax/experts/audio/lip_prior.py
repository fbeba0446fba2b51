"""What lips do to a sound, whoever speaks: a small network learnt from many people.

It reads two middle layers of Whisper, which know more about lips than the last one, in the frames
around the one that it predicts. Its three numbers are curves of average lips, standardised, for a
network to turn into motion of one mouth. The prior that comes with the package was learnt from
synthetic speech, from no person (`scripts/make_lip_prior.py`). `python -m fg3dgs_jax.lipsync fit`
goes on from there with people.

A frame depends on a fixed window of sound: 3 s before it and at most 0.52 s after it.
"""

import json
import os
import pathlib
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax.experts.audio import whisper
from fg3dgs_jax.media.whole_files import whole
from fg3dgs_jax.weights import store

NAME = "lip_prior"
SHIPPED = pathlib.Path(__file__).with_suffix(".npz")
CURVES = ("opening", "width", "protrusion")  # what is predicted, see `clip.lips`
TAPS = (2, 3)  # Whisper's layers that are read
OFFSETS = (-2, -1, 0, 1, 2)  # frames that a prediction sees
_DROPOUT = (0.2, 0.5, 0.5)  # of what goes into each layer
_KEYS = ("mean", "scale", "basis", "facts")


class LipNetwork(nn.Module):
    """Reduced features of `OFFSETS` [..., 5 C] -> `CURVES` [..., 3]."""

    widths: tuple[int, ...] = (192, 96)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, units: bool = False) -> jax.Array:
        """Predicts lips; with `train` units are dropped.

        With `units` it gives what its last layer reads instead, [..., widths[-1]].
        """
        for i, width in enumerate(self.widths):
            x = nn.Dropout(_DROPOUT[min(i, 2)], deterministic=not train)(x)
            x = nn.gelu(nn.Dense(width, name=f"layer_{i}")(x))
        if units:
            return x
        x = nn.Dropout(_DROPOUT[2], deterministic=not train)(x)
        return nn.Dense(len(CURVES), name=f"layer_{len(self.widths)}")(x)


class LipPrior(NamedTuple):
    """A fitted prior: how sound is reduced, and the network's variables."""

    mean: np.ndarray  # [D] of what `hear` gives
    scale: np.ndarray  # [D]
    basis: np.ndarray  # [D, C], principal directions
    params: Any  # of `LipNetwork`
    facts: dict  # JSON: what it was learnt from, and how well

    @property
    def network(self) -> LipNetwork:
        """The network whose variables these are."""
        return network_of(self.params)


def network_of(params: dict) -> LipNetwork:
    """The network that has such params."""
    biases = [params[f"layer_{i}"]["bias"] for i in range(len(params))]
    return LipNetwork(tuple(len(bias) for bias in biases[:-1]))


def hear(encoder: dict, samples: np.ndarray, num_frames: int) -> np.ndarray:
    """What Whisper's middle layers say of each frame.

    Args:
      encoder: Whisper's params.
      samples: [n] at 16 kHz, levelled as `media.loudness` does.
      num_frames: T. Frames after the sound's end hear silence.

    Returns:
      float32 [T, D], two rows of two layers a frame.
    """
    samples = np.asarray(samples)[: num_frames * 2 * whisper.SAMPLES_PER_ROW]
    samples = np.pad(samples, (0, num_frames * 2 * whisper.SAMPLES_PER_ROW - len(samples)))
    rows = whisper.encode_windows(encoder, samples, TAPS)
    return rows.reshape(num_frames, -1)


def in_context(prior: LipPrior, heard: np.ndarray) -> np.ndarray:
    """Reduces `heard` [T, D] and sets the frames of `OFFSETS` side by side, [T, 5 C]."""
    reduced = ((heard - prior.mean) / prior.scale) @ prior.basis
    index = np.arange(len(reduced))[:, None] + np.array(OFFSETS)
    return reduced[np.clip(index, 0, len(reduced) - 1)].reshape(len(reduced), -1)


def predict(prior: LipPrior, heard: np.ndarray) -> np.ndarray:
    """`CURVES` [T, 3] for what was heard, [T, D]."""
    rows = jnp.asarray(in_context(prior, heard), jnp.float32)
    return np.asarray(prior.network.apply({"params": prior.params}, rows))


def features(model: tuple[dict, LipPrior], samples: np.ndarray, num_frames: int) -> np.ndarray:
    """The audio features `lips`: 16 kHz samples [n] -> float32 [T, 1, 3].

    Args:
      model: Whisper's params and the prior.
      samples: [n].
      num_frames: T.
    """
    encoder, prior = model
    return predict(prior, hear(encoder, samples, num_frames))[:, None]


def require() -> pathlib.Path:
    """The prior's file: yours in a folder of $FG3DGS_WEIGHTS or the cache, else the package's."""
    own = [folder / f"{NAME}.npz" for folder in store.search_folders()]
    return next((path for path in own if path.is_file()), SHIPPED)


def save(path: os.PathLike | str, prior: LipPrior) -> None:
    """Writes a prior, float16 but for the statistics; the file appears whole or not at all."""
    arrays: dict[str, Any] = {
        f"{layer}/{name}": np.asarray(value, np.float16)
        for layer, values in prior.params.items()
        for name, value in values.items()
    }
    with whole(pathlib.Path(path)) as part, open(part, "wb") as file:
        np.savez(
            file,
            mean=prior.mean.astype(np.float32),
            scale=prior.scale.astype(np.float32),
            basis=prior.basis.astype(np.float16),
            facts=np.array(json.dumps(prior.facts)),
            **arrays,
        )


def load(path: os.PathLike | str) -> LipPrior:
    """Reads what `save` wrote.

    Raises:
      ValueError: the file is no lip prior.
    """
    try:
        with np.load(path) as file:
            arrays = {key: file[key] for key in file.files}
        params: dict = {}
        for key in set(arrays) - set(_KEYS):
            layer, name = key.split("/")
            params.setdefault(layer, {})[name] = arrays[key].astype(np.float32)
        mean, scale, basis = (arrays[key].astype(np.float32) for key in _KEYS[:3])
        prior = LipPrior(mean, scale, basis, params, json.loads(str(arrays["facts"])))
        if params["layer_0"]["kernel"].shape[0] != len(OFFSETS) * basis.shape[1]:
            raise ValueError("its arrays do not fit together")
    except (OSError, KeyError, ValueError, EOFError) as error:
        raise ValueError(
            f"{path} is no lip prior ({error}); expected what `lipsync fit` writes"
        ) from None
    return prior
