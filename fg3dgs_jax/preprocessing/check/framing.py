"""The square about the head that is cut out of a picture in which the face is small."""

import numpy as np

from fg3dgs_jax.preprocessing.check.sample import BOTTOM, TOP, face_heights

KEEP_UP_TO = 1024  # px; larger pictures are cropped to the head by default
SIZE = 512  # px, of what is cropped by itself
# Room about the faces of all frames, in heights of the face (forehead to chin).
ABOVE, BELOW, BESIDE = 0.55, 0.6, 1.0


def head_window(pixels: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The smallest square with room about every face, inside the picture.

    Args:
      pixels: [N, 478, 2] px, landmarks of frames with a face, N > 0.
      size: (height, width) px of the picture.

    Returns:
      (row, column, height, width) px, even numbers: what H.264 pictures halve without a shift.
    """
    height = float(np.median(face_heights(pixels)))
    middle = (pixels[:, TOP] + pixels[:, BOTTOM]) / 2
    # A detector's rare stray box must not widen the picture for all.
    low, high = np.percentile(middle, (1, 99), axis=0)
    half = height / 2
    x0, x1 = low[0] - half - BESIDE * height / 2, high[0] + half + BESIDE * height / 2
    y0, y1 = low[1] - half - ABOVE * height, high[1] + half + BELOW * height
    side = min(max(x1 - x0, y1 - y0), *size)
    side = int(side) // 2 * 2
    row = np.clip((y0 + y1 - side) / 2, 0, size[0] - side)
    column = np.clip((x0 + x1 - side) / 2, 0, size[1] - side)
    return int(row) // 2 * 2, int(column) // 2 * 2, side, side


def output_size(size: tuple[int, int], px: int | None = None) -> int | None:
    """Side, px, of the square that a picture of `size` (height, width) is cropped to, or None.

    The picture is kept, and None returned, if `px` is 0, or if it is None and the picture is small.
    """
    if px is None:
        return SIZE if max(size) > KEEP_UP_TO else None
    return px or None


def choose(
    pixels: np.ndarray, size: tuple[int, int], px: int | None = None
) -> tuple[tuple[int, int, int, int], int] | tuple[None, None]:
    """(window, px) as `Video.cropped` takes them, or (None, None): the picture is kept.

    Args:
      pixels: [N, 478, 2] px, landmarks of frames with a face; N may be 0: no head, no window.
      size: (height, width) px of the picture.
      px: see `output_size`.
    """
    px = output_size(size, px)
    if px is None or not len(pixels):
        return None, None
    return head_window(pixels, size), px
