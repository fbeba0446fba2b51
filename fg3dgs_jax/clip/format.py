"""The processed folder (schema 1), which `preprocess` and `synthetic/subject.py` write.

| file | content |
|---|---|
| `meta.json` | schema, T, width, height, fps, intrinsics, split, source, weights, consent... |
| `frames.mkv` | RGB [T, H, W, 3], as the three below coded as `streams.py` says |
| `labels.mkv` | [T, H, W], `LABELS`, without loss |
| `torso.mkv`, `alpha.mkv` | torso and neck layer, straight-alpha RGBA [T, H, W, 4] |
| `background.png` | RGB plate [H, W, 3] |
| `camera.npz` | world_to_camera [T, 4, 4] float32, valid [T] bool |
| `landmarks.npz` | pixels [T, 478, 2] float32 (x, y), valid [T] bool |
| `expression.npz` | e [T, E] float32, names [E] |
| `audio.wav` | 16 kHz mono int16; sample 0 is the start of frame 0 |
| `audio_<extractor>.npy` | float32 [T, A, D], row i belongs to frame i |

`meta.json` is written last: a folder without it is unfinished. Its `left_out` lists the frames that
do not show the person in the scene of the clip, as [first, last + 1, why]. They keep their rows,
but belong to no split. Their labels and torso are empty.

In place of the four streams a folder may have `frames.npy`, `labels.npy` and `torso.npy`, uint8
arrays of those shapes. Earlier versions wrote them, and `save_arrays` still does.
"""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from fg3dgs_jax.media.clock import FPS
from fg3dgs_jax.media.whole_files import whole

SCHEMA = 1
# The 19 CelebAMask-HQ classes in their order, and teeth as class 19.
LABELS = {
    "background": 0,
    "skin": 1,
    "left_brow": 2,
    "right_brow": 3,
    "left_eye": 4,
    "right_eye": 5,
    "glasses": 6,
    "left_ear": 7,
    "right_ear": 8,
    "earring": 9,
    "nose": 10,
    "mouth": 11,  # the interior, lips excluded
    "upper_lip": 12,
    "lower_lip": 13,
    "neck": 14,
    "necklace": 15,
    "cloth": 16,
    "hair": 17,
    "hat": 18,
    "teeth": 19,
}


# Everything but neck, clothes and background.
HEAD_LABELS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 17, 18, 19)


EYE_LABELS = (4, 5)


MOUTH_LABELS = (11, 19)


LIP_LABELS = (12, 13)


ARRAYS = ("frames", "labels", "torso")


class DatasetError(ValueError):
    """A processed folder that cannot be used.

    The message says what was found, what was expected and what to do.
    """


def train_frames(num_frames: int) -> int:
    """How many frames of a clip, its first 10/11, are trained on. The rest is the test split."""
    return int(num_frames * 10 / 11)


def own_frames(num_frames: int, left_out: Sequence[Sequence]) -> np.ndarray:
    """Bool [T]: which frames show the person in the scene of the clip.

    Args:
      num_frames: T.
      left_out: the others, as `meta.json` lists them.
    """
    own = np.ones(num_frames, bool)
    for first, stop, *_ in left_out:
        own[first:stop] = False
    return own


def longest_run(frames: np.ndarray) -> np.ndarray:
    """Of frame numbers that rise the longest part without a gap."""
    return max(np.split(frames, np.flatnonzero(np.diff(frames) > 1) + 1), key=len)


def splits(own: np.ndarray) -> dict[str, np.ndarray]:
    """{name: frame numbers} of the splits "train", "test" and "all" of `own_frames`."""
    frames = np.flatnonzero(own)
    cut = train_frames(len(frames))
    return {"train": frames[:cut], "test": frames[cut:], "all": frames}


def save_arrays(path: os.PathLike | str, **arrays: Any) -> None:
    """Writes `NAME.npy` (frames, labels, torso, audio_*), `background.png` and the three npz files.

    Keys: frames, labels, torso, background, audio_<extractor>, camera, landmarks, expression (the
    last three are dicts of arrays with the fields of the table above). Each file appears whole or
    not at all.
    """
    path = pathlib.Path(path)
    path.mkdir(parents=True, exist_ok=True)
    for name, value in arrays.items():
        suffix = ".npz" if isinstance(value, dict) else ".png" if name == "background" else ".npy"
        with whole(path / f"{name}{suffix}") as part:
            if isinstance(value, dict):
                np.savez(part, **value)
            elif suffix == ".png":  # not by imwrite, which hides errors
                part.write_bytes(cv2.imencode(".png", value[..., ::-1])[1].tobytes())
            else:
                np.save(part, value)


def save_meta(
    path: os.PathLike | str,
    *,
    num_frames: int,
    width: int,
    height: int,
    intrinsics: Sequence[float],
    source: Any,
    **facts: Any,
) -> None:
    """Writes `meta.json`, the last file: a folder without it is unfinished.

    Args:
      path: the folder.
      num_frames: T.
      width: px.
      height: px.
      intrinsics: (fx, fy, cx, cy) px.
      source: where the clip comes from, as JSON.
      **facts: what else is worth keeping: `weights` (name -> digest), `consent` and more.
    """
    frames = splits(own_frames(num_frames, facts.get("left_out", ())))
    spans = {k: [int(v[0]), int(v[-1]) + 1] if len(v) else [0, 0] for k, v in frames.items()}
    meta = {
        "schema": SCHEMA,
        "T": int(num_frames),
        "width": int(width),
        "height": int(height),
        "fps": FPS,
        "intrinsics": dict(zip(("fx", "fy", "cx", "cy"), map(float, intrinsics), strict=True)),
        "split": {name: spans[name] for name in ("train", "test")},
        "source": source,
        "weights": {},
        "consent": None,
        **facts,
    }
    with whole(pathlib.Path(path) / "meta.json") as part:
        part.write_text(json.dumps(meta, indent=2))
