"""`moments.png`: the frames around a blink, a wide mouth and a closed one, the truth above the
render, close up: where green rims, holes and flicker show.
"""

from typing import NamedTuple

import cv2
import numpy as np

from fg3dgs_jax.avatar import play
from fg3dgs_jax.evaluation import metrics, report

AROUND = 3  # frames before and after
CELL = 224  # px: a close-up is enlarged by whole numbers, at least 2, up to about this width
LABEL, GAP = 64, 6  # px
BLINK = "deepest blink"
MARGIN = 0.5  # of the lips' or eyes' width, around them: rims lie outside


def choose(openings, blinks) -> dict[str, int]:
    """{what it shows: position} in curves [n] of the truth; blinks (AU45) may be None.

    The blink's name tells its depth: the deepest of a split may be none.
    """
    found = {"widest mouth": int(np.argmax(openings)), "closed mouth": int(np.argmin(openings))}
    if blinks is None:
        return found
    return {f"{BLINK} {blinks.max():.2f}": int(np.argmax(blinks))} | found


class Strip(NamedTuple):
    """One moment."""

    centre: int  # position in the split
    frames: range  # positions shown
    box: tuple  # of every close-up
    cells: list  # (truth, render) as they come


class Moments:
    """Watches frames as they are drawn: `add` each in order, then `picture`."""

    def __init__(self, clip, index):
        """clip: the processed folder, at the size of the frames; index: int [n], numbers of the
        consecutive frames to come.
        """
        names = clip.expression_names
        blinks = clip.expression[index, names.index("AU45")] if "AU45" in names else None
        eyes, lips = clip.eyes_boxes(MARGIN)[index], clip.lips_boxes(MARGIN)[index][:, None]
        self.index, self.seen, self.strips = index, 0, {}
        for name, centre in choose(clip.mouth_openings()[index], blinks).items():
            first = max(min(centre - AROUND, len(index) - 2 * AROUND - 1), 0)
            frames = range(first, min(first + 2 * AROUND + 1, len(index)))
            boxes = (eyes if name.startswith(BLINK) else lips)[list(frames)]
            self.strips[name] = Strip(centre, frames, enclosing(boxes), [])

    def add(self, truth, image):
        """truth, image: float [H, W, 3] in [0, 1]."""
        for strip in self.strips.values():
            if self.seen in strip.frames:
                pair = (metrics.crop(x, strip.box) for x in (truth, image))
                strip.cells.append(tuple(map(enlarge, pair)))
        self.seen += 1

    def picture(self) -> np.ndarray:
        """uint8 RGB: for each moment a title, a row of true close-ups and one of rendered ones."""
        rows = []
        for name, (centre, frames, _, cells) in self.strips.items():
            height, width = cells[0][0].shape[:2]
            columns = [label("", LABEL, 0), label("truth", LABEL, height)]
            parts = [np.vstack([*columns, label("render", LABEL, height)])]
            for position, pair in zip(frames, cells, strict=True):
                title = f"{self.index[position]}{' ' + name if position == centre else ''}"
                parts.append(np.vstack([label(title, width, 0), *pair]))
            rows.append(np.hstack(parts))
        widest = max(row.shape[1] for row in rows)
        gaps = [((0, GAP), (0, widest - row.shape[1]), (0, 0)) for row in rows]
        return np.vstack([np.pad(*pair) for pair in zip(rows, gaps, strict=True)])


def enclosing(boxes) -> tuple[int, int, int, int]:
    """The one box around boxes [..., 4]: all close-ups of a moment have one place, so that what
    moves between them has moved in the picture.
    """
    row0, row1, col0, col1 = np.asarray(boxes).reshape(-1, 4).T
    return int(row0.min()), int(row1.max()), int(col0.min()), int(col1.max())


def enlarge(image) -> np.ndarray:
    """float [h, w, 3] -> uint8, every pixel a square of 2 x 2 or more."""
    times = max(2, round(CELL / image.shape[1]))
    picture = play.to_uint8(image)
    return cv2.resize(picture, None, fx=times, fy=times, interpolation=cv2.INTER_NEAREST)


def label(text, width, height) -> np.ndarray:
    """A caption with the dark column of `height` px below it that a picture would take; 0: none."""
    strip = report.caption(text, width)
    if not height:
        return strip
    column = np.full((height, width, 3), 24, np.uint8)
    column[: len(strip)] = strip[:height]
    return column
