"""`moments.png`: close-ups of a blink, a wide mouth and a closed one, the truth above the render.

They are where rims, holes and flicker show.
"""

from typing import NamedTuple

import cv2
import numpy as np

from fg3dgs_jax.avatar import play
from fg3dgs_jax.clip.processed import Clip
from fg3dgs_jax.evaluation import metrics, report

# Frames before and after each highlight.
AROUND = 3
# px: a close-up is enlarged by whole numbers, at least 2, up to about this width.
CELL = 224
# px: width of the rows' names, distance of the highlights.
LABEL, GAP = 64, 6
BLINK = "deepest blink"
# Of the lips' or eyes' width, around them: rims lie outside.
MARGIN = 0.5


def choose(openings: np.ndarray, blinks: np.ndarray | None) -> dict[str, int]:
    """Returns the position of each highlight by its title.

    The title of the blink states its depth, because a split may have no deep one.

    Args:
      openings: [n], how far the mouth of the truth is open.
      blinks: AU45 [n] of the truth, where it is known.
    """
    mouths = {"widest mouth": int(np.argmax(openings)), "closed mouth": int(np.argmin(openings))}
    if blinks is None:
        return mouths
    return {f"{BLINK} {blinks.max():.2f}": int(np.argmax(blinks))} | mouths


class Highlight(NamedTuple):
    """The frames around one position."""

    centre: int  # position in the split
    frames: range  # positions shown
    box: tuple[int, int, int, int]  # of every close-up
    cells: list[tuple[np.ndarray, np.ndarray]]  # (truth, render), filled as they are drawn


class Highlights:
    """Close-ups of the highlights of a split. A `watcher.Watcher`: then take `picture`."""

    def __init__(self, clip: Clip, index: np.ndarray):
        """Chooses the highlights.

        Args:
          clip: the processed folder, at the size of the frames.
          index: int [n], numbers of the consecutive frames to come.
        """
        names = clip.expression_names
        blinks = clip.expression[index, names.index("AU45")] if "AU45" in names else None
        eyes, lips = clip.eyes_boxes(MARGIN)[index], clip.lips_boxes(MARGIN)[index][:, None]
        self.index, self.count = index, 0
        self.rows: dict[str, Highlight] = {}
        for name, centre in choose(clip.mouth_openings()[index], blinks).items():
            first = max(min(centre - AROUND, len(index) - 2 * AROUND - 1), 0)
            frames = range(first, min(first + 2 * AROUND + 1, len(index)))
            boxes = (eyes if name.startswith(BLINK) else lips)[list(frames)]
            self.rows[name] = Highlight(centre, frames, enclosing(boxes), [])

    def add(self, truth: np.ndarray, image: np.ndarray) -> None:
        """Takes in one pair of frames [H, W, 3] in [0, 1]."""
        for row in self.rows.values():
            if self.count in row.frames:
                true, drawn = (enlarge(metrics.crop(x, row.box)) for x in (truth, image))
                row.cells.append((true, drawn))
        self.count += 1

    def picture(self) -> np.ndarray:
        """Returns uint8 RGB: of each highlight a title, a true and a rendered row of close-ups."""
        rows = []
        for name, (centre, frames, _, cells) in self.rows.items():
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


def enclosing(boxes: np.ndarray) -> tuple[int, int, int, int]:
    """Returns the one box around boxes [..., 4].

    All close-ups of a highlight have one place: what moves between them has moved in the picture.
    """
    row0, row1, col0, col1 = np.asarray(boxes).reshape(-1, 4).T
    return int(row0.min()), int(row1.max()), int(col0.min()), int(col1.max())


def enlarge(image: np.ndarray) -> np.ndarray:
    """Returns float [h, w, 3] as uint8, every pixel a square of 2 x 2 or more."""
    times = max(2, round(CELL / image.shape[1]))
    picture = play.to_uint8(image)
    return cv2.resize(picture, None, fx=times, fy=times, interpolation=cv2.INTER_NEAREST)


def label(text: str, width: int, height: int) -> np.ndarray:
    """Returns a caption above a dark column of `height` px, in place of a picture; 0: no column."""
    strip = report.caption(text, width)
    if not height:
        return strip
    column = np.full((height, width, 3), report.DARK, np.uint8)
    column[: len(strip)] = strip[:height]
    return column
