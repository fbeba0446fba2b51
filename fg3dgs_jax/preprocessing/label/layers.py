"""The step that labels a clip's pixels, and makes its background plate and its torso layer."""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from fg3dgs_jax.clip import format, over_time
from fg3dgs_jax.clip.memory_map import releasing
from fg3dgs_jax.media import clock
from fg3dgs_jax.media.progress import progress
from fg3dgs_jax.preprocessing import threads
from fg3dgs_jax.preprocessing.label import parsers, smoothing
from fg3dgs_jax.preprocessing.label import torso as torso_lib
from fg3dgs_jax.preprocessing.resume import Folder

VERSION = 3  # of labels, plate and torso: older ones are made again
LABELS_CHUNK = 500  # frames
PLATE_FRAMES = 60


def layers(job: Any) -> None:
    """Writes labels, plate and torso.

    Args:
      job: with `folder`, `frames`, `landmarks`, `borders`, `own` and `parser`. Frames that are not
        its own get no labels and no torso, and the plate is made without them.
    """
    folder, frames, cuts, own = job.folder, job.frames, job.borders, job.own
    points = over_time.smooth(job.landmarks, cuts=cuts)
    labels, alphas = label(folder, job.parser, frames, points, cuts, own)
    shown = np.flatnonzero(own)
    some = np.unique(np.linspace(0, len(shown) - 1, min(PLATE_FRAMES, len(shown))).astype(int))
    some = shown[some]
    plate, _ = torso_lib.background_plate(frames[some], np.maximum(labels[some], alphas[some]))
    torso = folder.array("torso", (*frames.shape[:3], 4))
    opacities = (alpha / np.float32(255) for alpha in alphas)
    draw = functools.partial(_torso, plate)
    drawn = threads.map_ahead(draw, own, frames, labels, opacities)
    bar = progress(drawn, desc="torso", total=len(frames), unit="frame")
    for i, layer in enumerate(releasing(bar, frames, labels, alphas, torso)):
        torso[i] = layer
    format.save_arrays(folder.path, background=plate)
    folder.keep("labels", labels)
    folder.keep("torso", torso)
    pathlib.Path(str(alphas.filename)).unlink()


def _torso(plate, own, frame, labels, alpha):
    return torso_lib.torso_layer(frame, labels, alpha, plate) if own else 0


def label(
    folder: Folder,
    parser: parsers.FaceParser,
    frames: np.ndarray,
    points: np.ndarray,
    cuts: Sequence[int] = (),
    own: np.ndarray | None = None,
) -> list[np.memmap]:
    """Labels and alphas uint8 [T, H, W] of frames, still to be kept.

    Each chunk is begun afresh, with the neighbours that its first and last frames are smoothed
    with. So work taken up after an interruption gives the same.

    Args:
      folder: whose current step this is.
      parser: makes labels and alpha of one frame.
      frames: uint8 [T, H, W, 3].
      points: float [T, 478, 2] px, smoothed.
      cuts: frames that begin another scene.
      own: bool [T], frames to label. The others stay background. None: all.
    """
    shape, reach = frames.shape[:3], smoothing.REACH
    own = np.ones(len(frames), bool) if own is None else own
    arrays, done = folder.resumable({"labels": shape, "alpha": shape})
    with progress(desc="labels", total=len(frames), initial=done, unit="frame") as bar:
        for start in range(done, len(frames), LABELS_CHUNK):
            stop = min(start + LABELS_CHUNK, len(frames))
            part = _with_neighbours(own, start, stop, reach)
            inside = [c - part.start for c in cuts if part.start < c < part.stop]
            parsed = parser.parse(frames[part], points[part], clock.FPS)
            parsed = smoothing.smooth(parsed, points[part], cuts=inside)
            for i, frame in enumerate(releasing(parsed, frames, *arrays), part.start):
                if start <= i < stop and own[i]:
                    arrays[0][i], arrays[1][i] = frame.labels, np.rint(255 * frame.alpha)
                    bar.update()
            bar.update(int((~own[start:stop]).sum()))
            folder.filled(stop, arrays)
    return arrays


def _with_neighbours(own, start, stop, reach):
    """The frames to parse for the own ones of start .. stop, with the neighbours they go with."""
    shown = start + np.flatnonzero(own[start:stop])
    if not len(shown):
        return slice(start, start)
    first, last = int(shown[0]), int(shown[-1]) + 1
    first = max(first - reach, 0) if first == start else first
    last = min(last + reach, len(own)) if last == stop else last
    return slice(first, last)
