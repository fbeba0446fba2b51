"""One interface to the emotion networks: a frame and its face's landmarks in, named numbers out."""

import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fg3dgs_jax.experts.face import emotieff, fer

WEIGHTS = {"fer": "fer_emotion", "emotieff": "emotieff"}  # kind -> name in the registry


class Network(NamedTuple):
    """A network ready to be called."""

    names: tuple[str, ...]  # of the numbers it gives
    call: Callable  # (uint8 RGB [H, W, 3], landmarks [P, 2] x, y in px) -> float32 [len(names)]


def load(kind: str, path: os.PathLike | str) -> Network:
    """`fer`: seven probabilities; `emotieff`: eight, valence and arousal if known, the latent."""
    if kind not in WEIGHTS:
        raise ValueError(f"the emotion network is {kind!r}; expected one of {', '.join(WEIGHTS)}")
    return {"fer": _fer, "emotieff": _emotieff}[kind](path)


def _fer(path):
    variables = fer.load(path)

    def call(frame, points):
        return np.asarray(fer.emotions(variables, fer.crops(frame, _box(points))))[0]

    return Network(tuple(f"emotion_{name}" for name in fer.EMOTIONS), call)


def _emotieff(path):
    network = emotieff.load(path)

    def row(faces):
        emotion = emotieff.run(network, faces)
        mood = () if emotion.mood is None else (emotion.mood,)
        return np.concatenate([emotion.probabilities, *mood, emotion.features], 1)[0], len(mood)

    # Only a run tells how many numbers there are.
    first, mood = row(np.zeros((1, 3, network.size, network.size), np.float32))
    names = [f"emotion_{name}" for name in (*emotieff.EMOTIONS, *("valence", "arousal") * mood)]
    names += [f"emotieff_{k}" for k in range(len(first) - len(names))]

    def call(frame, points):
        return row(emotieff.crops(network, frame, _box(points)))[0]

    return Network(tuple(names), call)


def _box(points):
    """Landmarks [P, 2] -> [1, 4] row0, row1, col0, col1 px around them."""
    corners = np.stack([points.min(0), points.max(0)], 1)  # (x, y), (from, to)
    return corners[::-1].reshape(1, 4)
