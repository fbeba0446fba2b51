"""How far a render is from the truth: PSNR, SSIM, landmark distance and the best still image.

Every model must beat the still image.

Images are float [H, W, 3] in [0, 1]; boxes are (row0, row1, col0, col1), half open.
"""

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import ArrayLike

from fg3dgs_jax.clip.landmarks import LIPS_20

# dB; identical pictures would give infinity and spoil every mean.
PSNR_CAP = 100.0


def psnr(a: ArrayLike, b: ArrayLike) -> float:
    """Returns -10 log10 of the mean squared error, dB, at most `PSNR_CAP`."""
    error = np.mean((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2)
    return float(min(-10.0 * np.log10(error), PSNR_CAP)) if error > 0 else PSNR_CAP


def crop(image: np.ndarray, box: ArrayLike) -> np.ndarray:
    """Returns the part of [H, W, ...] inside a box."""
    row0, row1, col0, col1 = (int(v) for v in np.asarray(box))
    return image[row0:row1, col0:col1]


def pixels(image: np.ndarray, boxes: ArrayLike) -> np.ndarray:
    """Returns the pixels [n, C] of [H, W, C] inside boxes [k, 4], box by box."""
    crops = (crop(image, box) for box in np.asarray(boxes))
    return np.concatenate([part.reshape(-1, image.shape[-1]) for part in crops])


def box_psnr(a: np.ndarray, b: np.ndarray, box: ArrayLike) -> float:
    """Returns the PSNR inside one box, dB."""
    return psnr(crop(a, box), crop(b, box))


def boxes_psnr(a: np.ndarray, b: np.ndarray, boxes: ArrayLike) -> float:
    """Returns the PSNR over the pixels of all boxes [k, 4] together, dB."""
    return psnr(pixels(a, boxes), pixels(b, boxes))


def ssim(a: ArrayLike, b: ArrayLike) -> float:
    """Returns the mean SSIM as 3DGS defines it.

    It has an 11 x 11 Gaussian of sigma 1.5, zero padding and biased moments.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    mean_a, mean_b = _blur(a), _blur(b)
    # Moments in float64: E[x^2] - E[x]^2 cancels badly in flat regions.
    var_a = _blur(a * a) - mean_a**2
    var_b = _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    bottom = (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return float(np.mean(top / bottom))


def _blur(x):
    kernel = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    kernel /= kernel.sum()
    return cv2.sepFilter2D(x, cv2.CV_64F, kernel, kernel, borderType=cv2.BORDER_CONSTANT)


def lmd(points_a: ArrayLike, points_b: ArrayLike) -> float:
    """Returns the mean distance in px of two sets of lip landmarks [20, 2].

    Each is centred on its own mean. Whole face meshes [478, 2] are cut down to the 20 lip points.
    """
    a, b = (np.asarray(p, np.float64) for p in (points_a, points_b))
    a, b = (p[list(LIPS_20)] if len(p) > len(LIPS_20) else p for p in (a, b))
    return float(np.linalg.norm((a - a.mean(0)) - (b - b.mean(0)), axis=-1).mean())


def best_still_image(frames: Iterable[np.ndarray]) -> np.ndarray:
    """Returns the picture with the least squared error to all frames: their mean, in [0, 1].

    Args:
      frames: uint8 [H, W, 3].

    Raises:
      ValueError: there are no frames.
    """
    total, count = np.zeros(()), 0
    for frame in frames:
        total = total + np.asarray(frame, np.float64)
        count += 1
    if not count:
        raise ValueError("no frames to average: the train split is empty; use a longer clip")
    return (total / count / 255.0).astype(np.float32)


def mean_or_none(values: Iterable[float | None]) -> float | None:
    """Returns the mean of the values that are not None, or None where all are.

    A metric that could not be measured is null, never a number.
    """
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None
