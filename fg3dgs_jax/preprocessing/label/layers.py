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
      job: with `folder`, `frames`, `landmarks`, `cuts` and `parser`.
    """
    folder, frames, cuts = job.folder, job.frames, job.cuts
    points = over_time.smooth(job.landmarks, cuts=cuts)
    labels, alphas = label(folder, job.parser, frames, points, cuts)
    some = np.unique(np.linspace(0, len(frames) - 1, min(PLATE_FRAMES, len(frames))).astype(int))
    plate, _ = torso_lib.background_plate(frames[some], np.maximum(labels[some], alphas[some]))
    torso = folder.array("torso", (*frames.shape[:3], 4))
    opacities = (alpha / np.float32(255) for alpha in alphas)
    draw = functools.partial(torso_lib.torso_layer, plate=plate)
    drawn = threads.map_ahead(draw, frames, labels, opacities)
    bar = progress(drawn, desc="torso", total=len(frames), unit="frame")
    for i, layer in enumerate(releasing(bar, frames, labels, alphas, torso)):
        torso[i] = layer
    format.save_arrays(folder.path, background=plate)
    folder.keep("labels", labels)
    folder.keep("torso", torso)
    pathlib.Path(str(alphas.filename)).unlink()


def label(
    folder: Folder,
    parser: parsers.FaceParser,
    frames: np.ndarray,
    points: np.ndarray,
    cuts: Sequence[int] = (),
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
    """
    shape, reach = frames.shape[:3], smoothing.REACH
    arrays, done = folder.resumable({"labels": shape, "alpha": shape})
    with progress(desc="labels", total=len(frames), initial=done, unit="frame") as bar:
        for start in range(done, len(frames), LABELS_CHUNK):
            stop = min(start + LABELS_CHUNK, len(frames))
            part = slice(max(start - reach, 0), min(stop + reach, len(frames)))
            inside = [c - part.start for c in cuts if part.start < c < part.stop]
            parsed = parser.parse(frames[part], points[part], clock.FPS)
            parsed = smoothing.smooth(parsed, points[part], cuts=inside)
            for i, frame in enumerate(releasing(parsed, frames, *arrays), part.start):
                if start <= i < stop:
                    arrays[0][i], arrays[1][i] = frame.labels, np.rint(255 * frame.alpha)
                    bar.update()
            folder.filled(stop, arrays)
    return arrays
