"""The step that labels a clip's pixels, and makes its background plate and its torso layer."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fg3dgs_jax.clip import decoded, format, over_time, streams
from fg3dgs_jax.media import clock
from fg3dgs_jax.media.progress import progress
from fg3dgs_jax.media.whole_files import whole
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

    def draw(shown, frame, classes, alpha):
        layer = np.zeros((*classes.shape, 4), np.uint8)
        if shown:
            layer = torso_lib.torso_layer(frame, classes, alpha / np.float32(255), plate)
        return streams.layer_planes(frame, classes, layer)

    drawn = threads.map_ahead(draw, own, frames, labels, alphas)
    with folder.streams("labels", "torso", "alpha") as sinks:
        for planes in progress(drawn, desc="torso", total=len(frames), unit="frame"):
            sinks.add(planes)
    format.save_arrays(folder.path, background=plate)


def label(
    folder: Folder,
    parser: parsers.FaceParser,
    frames: decoded.Pictures,
    points: np.ndarray,
    cuts: Sequence[int] = (),
    own: np.ndarray | None = None,
) -> tuple[decoded.Decoded, decoded.Decoded]:
    """Labels and alphas uint8 [T, H, W] of frames, in chunks of the step `layers`.

    Each chunk is begun afresh, with the neighbours that its first and last frames are smoothed
    with. So work taken up after an interruption gives the same.

    Args:
      folder: where the chunks are.
      parser: makes labels and alpha of one frame.
      frames: uint8 [T, H, W, 3].
      points: float [T, 478, 2] px, smoothed.
      cuts: frames that begin another scene.
      own: bool [T], frames to label. The others stay background. None: all.
    """
    shape, reach = frames.shape[:3], smoothing.REACH
    own = np.ones(len(frames), bool) if own is None else own
    blank = np.zeros((2 * shape[1], shape[2]), np.uint8)
    starts = range(0, len(frames), LABELS_CHUNK)
    chunks = [folder.chunk("layers", k, ".mkv") for k in range(len(starts))]
    with progress(desc="labels", total=len(frames), unit="frame") as bar:
        for start, chunk in zip(starts, chunks, strict=True):
            stop = min(start + LABELS_CHUNK, len(frames))
            if chunk.exists():
                bar.update(stop - start)
                continue
            part = _with_neighbours(own, start, stop, reach)
            inside = [c - part.start for c in cuts if part.start < c < part.stop]
            parsed = parser.parse(frames[part], points[part], clock.FPS)
            parsed = smoothing.smooth(parsed, points[part], cuts=inside)
            with whole(chunk) as unfinished, streams.Sinks({"layers": unfinished}) as sinks:
                for _ in range(start, part.start):
                    sinks.add({"layers": blank})
                for i, frame in enumerate(parsed, part.start):
                    if start <= i < stop:
                        alpha = np.rint(255 * frame.alpha).astype(np.uint8)
                        both = np.concatenate([frame.labels, alpha])
                        sinks.add({"layers": both if own[i] else blank})
                        bar.update(int(own[i]))
                for _ in range(part.stop, stop):
                    sinks.add({"layers": blank})
            bar.update(int((~own[start:stop]).sum()))
    stacked, height = decoded.grey(chunks, LABELS_CHUNK), shape[1]
    return (
        decoded.Decoded(lambda number: stacked[number][:height], shape),
        decoded.Decoded(lambda number: stacked[number][height:], shape),
    )


def _with_neighbours(own, start, stop, reach):
    """The frames to parse for the own ones of start .. stop, with the neighbours they go with."""
    shown = start + np.flatnonzero(own[start:stop])
    if not len(shown):
        return slice(start, start)
    first, last = int(shown[0]), int(shown[-1]) + 1
    first = max(first - reach, 0) if first == start else first
    last = min(last + reach, len(own)) if last == stop else last
    return slice(first, last)
