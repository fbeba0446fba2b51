"""Landmarks of videos, found once for all that learns from them."""

import os
import pathlib
from typing import Any

import numpy as np

from fg3dgs_jax.experts.face import face_landmarker
from fg3dgs_jax.experts.face.face_landmarker import FaceTrack
from fg3dgs_jax.media.video import Video
from fg3dgs_jax.media.whole_files import whole
from fg3dgs_jax.system import arrays
from fg3dgs_jax.weights import store


def detect(footage: Video, cache: os.PathLike | str | None = None) -> FaceTrack:
    """The landmarks of a video.

    Args:
      footage: the video.
      cache: a folder that keeps them, so that the next call is quick.

    Raises:
      ValueError: the landmarker's weights are missing.
    """
    kept = None if cache is None else kept_file(footage.path, cache, "faces")
    if kept is not None and arrays.is_whole(kept):
        return face_landmarker.load_track(kept)
    track = face_landmarker.detect(store.require("face_landmarker"), footage.frames())
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with whole(kept) as part, open(part, "wb") as file:
            fields: dict[str, Any] = track._asdict() | {"names": np.array(track.names, str)}
            np.savez(file, **fields)
    return track


def kept_file(path: pathlib.Path, cache: os.PathLike | str, what: str) -> pathlib.Path:
    """The file of a cache that keeps something of a video, as long as the video is the same."""
    state = path.stat()
    stamp = f"{state.st_size:x}{state.st_mtime_ns:x}"
    return pathlib.Path(cache) / f"{path.resolve().stem}_{stamp}_{what}.npz"
