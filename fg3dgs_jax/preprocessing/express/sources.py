"""Where the expression channels come from: the emotion network, and whose action units."""

import os
import pathlib
from typing import Any, NamedTuple

from fg3dgs_jax.experts.face import emotions
from fg3dgs_jax.preprocessing.express import openface
from fg3dgs_jax.weights import files, store


class Emotion(NamedTuple):
    """The network of the emotion channels, or none."""

    name: str  # "fer", "emotieff" or "none"
    network: emotions.Network | None
    weights: tuple[str, ...]  # names in the registry


class ExpressionSources(NamedTuple):
    """All that the expression channels of a clip are made of besides its face track."""

    emotion: Emotion
    units: openface.Track | None  # OpenFace's action units at the clip's frames, or None: proxies
    origin: dict[str, Any]  # in words and numbers, for `meta.json`


def emotion_network(name: str | None = None) -> Emotion:
    """The network of a name; None takes fer where its weights are, else none.

    Raises:
      ValueError: weights that are missing or not of that network; one line.
    """
    name = name or ("fer" if store.find(emotions.WEIGHTS["fer"]) else "none")
    if name == "none":
        return Emotion(name, None, ())
    weights = emotions.WEIGHTS[name]
    return Emotion(name, emotions.load(name, store.require(weights)), (weights,))


def open_sources(
    emotion: Emotion, file: os.PathLike | str | None, num_frames: int, start: float = 0.0
) -> ExpressionSources:
    """Reads OpenFace's CSV `file` for a clip, or takes the proxies if it is None.

    Args:
      emotion: the network of the emotion channels.
      file: of the whole video.
      num_frames: of the clip.
      start: s of the video at which the clip begins.

    Raises:
      OpenFaceError: no such table, or not of this clip; one line.
    """
    if file is None:
        words = "blendshapes (proxies, not calibrated; blinks unsmoothed)"
        return ExpressionSources(emotion, None, {"emotion": emotion.name, "action_units": words})
    units = openface.channels(file, num_frames, start)
    origin = {
        "emotion": emotion.name,
        "action_units": "openface",
        "file": pathlib.Path(file).name,
        "sha256": files.digest(file),
        "frames_without_a_face": int((~units.valid).sum()),
        "scale": "intensities / 5, AU45 / 2, presences as they are",
        "columns": list(units.names),
    }
    return ExpressionSources(emotion, units, origin)
