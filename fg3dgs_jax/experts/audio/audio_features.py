"""Every audio extractor behind one door: sound in, one window of features per video frame out.

Row i of what `extract` gives belongs to frame i (25 a second), whatever the extractor. A run's
config names its extractor (`data.audio_extractor`) and, once training has begun, its windows'
shape (`data.audio_window`); features of another shape are refused by `check_window`.
"""

import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fg3dgs_jax.experts.audio import (
    ave,
    deepspeech,
    lip_adapt,
    lip_prior,
    quiet,
    wav2vec2_checkpoint,
    wav2vec2_features,
    whisper,
)
from fg3dgs_jax.media import loudness, windows
from fg3dgs_jax.weights import store

QUIET = 18  # sounds of 2 s that no lips make, from which a person's prior learns that as well


class Extractor(NamedTuple):
    """One row of the table: load(paths of its files) -> model; run(model, samples, T)."""

    weights: str | None  # name in the registry of weights; None: it has no network
    window: tuple[int, int]  # [W, D], rows and numbers a row
    load: Callable[..., Any] | None
    run: Callable[[Any, np.ndarray, int], np.ndarray]


class FeatureMismatch(ValueError):
    """Audio features that are not what an avatar was trained on; one line."""


def extract(
    name: str, samples: np.ndarray, num_frames: int, prior: os.PathLike | str | None = None
) -> np.ndarray:
    """Computes the features of a sound.

    Rows after the sound's end are what the extractor gives for nothing: zeros, or `mel`'s silence,
    or `ave`'s last row.

    Args:
      name: of the extractor.
      samples: [n > 0] at 16 kHz, mono, int16 or float in [-1, 1].
      num_frames: T.
      prior: the file of the lip prior that `lips` uses. By default the first that is found.

    Returns:
      float32 [T, W, D].

    Raises:
      ValueError: an unknown extractor, weights that are missing or not of this network, no samples.
    """
    extractor, path = lookup(name), require(name)
    if not len(samples):
        raise ValueError("there are no samples; expected some sound, 16 kHz mono")
    paths = [path] if path else []
    if extractor.load is _load_lips:
        paths.append(pathlib.Path(prior or lip_prior.require()))
    model = _model(name, *paths) if paths else None
    features = np.asarray(extractor.run(model, samples, num_frames), np.float32)
    expected = (num_frames, *extractor.window)
    if features.shape != expected:
        raise FeatureMismatch(
            f"{path} gives features of shape {list(features.shape)} where {name!r} has "
            f"{list(expected)}: these are the weights of another model"
        )
    return features


def expected_lips(samples: np.ndarray, num_frames: int) -> np.ndarray | None:
    """What the lip prior expects of the lips that spoke a sound.

    Args:
      samples: int16 [n > 0] at 16 kHz, of any level.
      num_frames: T.

    Returns:
      float32 [T, 3], `lip_prior.CURVES`, standardised. None without Whisper's weights.
    """
    if store.find("whisper_tiny_en") is None:
        return None
    levelled = loudness.apply_gain(samples, loudness.gain_db(samples))
    return extract("lips", levelled, num_frames)[:, 0]


def persons_lips(
    samples: np.ndarray, curves: np.ndarray, learnt: np.ndarray
) -> tuple[lip_prior.LipPrior, np.ndarray]:
    """The features `lips` of a clip, by a prior that has learnt how its person moves the lips.

    Args:
      samples: int16 [n > 0] at 16 kHz, at the common level.
      curves: float32 [T, 3] of the person's lips, `lip_prior.CURVES` in any unit.
      learnt: numbers of the frames to learn from, those of the avatar's training.

    Returns:
      The person's prior, and float32 [T, 1, 3]: see `lip_adapt`.

    Raises:
      ValueError: the weights are missing.
    """
    encoder, prior = _load_lips(store.require("whisper_tiny_en"), lip_prior.require())
    heard = lip_prior.hear(encoder, samples, len(curves))
    still = [
        lip_prior.hear(encoder, sound, windows.num_frames_of(sound))
        for sound in quiet.sounds(np.random.default_rng(0), QUIET)
    ]
    adapted, features = lip_adapt.adapt(prior, heard, curves, learnt, still)
    return adapted, features[:, None]


def lookup(name: str) -> Extractor:
    """The row of the table; refuses an unknown name, naming those it knows."""
    if name not in EXTRACTORS:
        raise ValueError(
            f"no audio extractor is called {name!r}; this version has {', '.join(EXTRACTORS)}"
        )
    return EXTRACTORS[name]


def require(name: str) -> pathlib.Path | None:
    """Where the extractor's weights are, None if it has none; if absent, one line (ValueError)."""
    needed = lookup(name).weights
    return store.require(needed) if needed else None


def check_window(settings: Any, window: Sequence[int], source: object) -> None:
    """Refuses features whose `window` (W, D) is not that of those the avatar was trained on.

    Args:
      settings: the config's `data`. Runs of earlier versions have no `audio_window` in it: then
        the shape is the extractor's own, if this version knows the extractor.
      window: of the features at hand.
      source: where the features come from, for the message.

    Raises:
      FeatureMismatch: naming both shapes.
    """
    name = settings.audio_extractor
    known = EXTRACTORS[name].window if name in EXTRACTORS else ()
    expected, actual = tuple(settings.audio_window or known), tuple(window)
    if expected and actual != expected:
        raise FeatureMismatch(
            f"{source} has {name!r} features in windows [W, D] of {list(actual)}; the avatar was "
            f"trained on {list(expected)}: use features of the same extractor, or train anew"
        )


@functools.lru_cache(maxsize=1)  # a large one is 1.3 GB
def _model(name, *paths):
    # On the device once, not again with every piece of a long sound.
    return jax.tree.map(
        lambda leaf: jax.device_put(leaf) if isinstance(leaf, np.ndarray) else leaf,
        load(*paths) if (load := EXTRACTORS[name].load) else None,
    )


def _load_lips(encoder, prior):
    return whisper.load(encoder), lip_prior.load(prior)


def _whisper(params, samples, num_frames):
    return windows.whisper_windows(whisper.encode(params, samples), num_frames)


def _letters(model, samples, num_frames):
    return wav2vec2_features.letter_features(
        model.params, model.config, samples, num_frames=num_frames
    )


def _hidden(model, samples, num_frames):
    return wav2vec2_features.hidden_features(
        model.params, model.config, samples, num_frames=num_frames
    )


_load_letters = functools.partial(wav2vec2_checkpoint.load, letters=True)
_load_hidden = functools.partial(wav2vec2_checkpoint.load, letters=False)

# Sound is cut into segments as for the published features: letters streamed, HuBERT in chunks.
EXTRACTORS = {
    "mel": Extractor(None, (16, 80), None, lambda _, *sound: windows.mel_windows(*sound)),
    "whisper": Extractor("whisper_tiny_en", (2, 384), whisper.load, _whisper),
    "lips": Extractor("whisper_tiny_en", (1, 3), _load_lips, lip_prior.features),
    "deepspeech": Extractor("deepspeech", (16, 29), deepspeech.load, deepspeech.features),
    "wav2vec2": Extractor("wav2vec2_esperanto", (16, 44), _load_letters, _letters),
    "wav2vec2_base": Extractor("wav2vec2_base", (16, 32), _load_letters, _letters),
    "hubert": Extractor("hubert_large", (2, 1024), _load_hidden, _hidden),
    "hubert_base": Extractor("hubert_base", (2, 768), _load_hidden, _hidden),
    "ave": Extractor("ave", (1, 512), ave.load, ave.features),
}
