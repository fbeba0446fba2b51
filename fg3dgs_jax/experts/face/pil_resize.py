"""Pillow's bilinear resizing, bit for bit, for networks that were trained behind it."""

import numpy as np

_BITS = 22  # of a weight's fraction; Pillow sums in whole numbers


def bilinear(pictures: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [..., H, W, C] -> uint8 [..., height, width, C], as Image.resize(BILINEAR) does.

    A triangle as wide as the step between output pixels, so that shrinking smooths; each axis is
    rounded to 8 bits, first across, then down (Pillow 13 goes down first where that is less
    work, as for tall pictures: one level's difference). The same size gives the same picture.
    """
    pictures = np.asarray(pictures)
    if pictures.dtype != np.uint8 or pictures.ndim < 3:
        raise ValueError(
            f"pictures are {pictures.dtype} {pictures.shape}; expected uint8 [..., H, W, C]"
        )
    return _along(_along(pictures, width, -2), height, -3)


def _along(pictures, size, axis):
    if pictures.shape[axis] == size:
        return pictures
    places, weights = _taps(pictures.shape[axis], size)
    column = (size,) + (1,) * (-1 - axis)
    total = 1 << (_BITS - 1)
    for place, weight in zip(places.T, weights.T, strict=True):
        total = total + np.take(pictures, place, axis).astype(np.int32) * weight.reshape(column)
    return np.clip(total >> _BITS, 0, 255).astype(np.uint8)


def _taps(old, new):
    """For each of `new` output pixels: which input pixels [new, n], and their weights [new, n]."""
    step = old / new
    reach = max(step, 1.0)
    centre = (np.arange(new) + 0.5) * step
    first = np.maximum((centre - reach + 0.5).astype(int), 0)
    last = np.minimum((centre + reach + 0.5).astype(int), old)
    places = first[:, None] + np.arange((last - first).max())
    weights = np.maximum(0.0, 1.0 - np.abs((places - centre[:, None] + 0.5) / reach))
    weights = np.where(places < last[:, None], weights, 0.0)
    weights = weights / weights.sum(1, keepdims=True)
    whole = (weights * (1 << _BITS) + 0.5).astype(np.int32)
    return np.minimum(places, old - 1), whole
