"""Mouth openings measured on pixels, and their correlation with the sound.

The opening is measured by colour and place in a box, the same way on ground truth and render. The
boxes never change size: one that grew with the true mouth would lend that motion to any picture.
"""

from typing import NamedTuple

import numpy as np

from fg3dgs_jax.clip.format import LABELS, LIP_LABELS
from fg3dgs_jax.media.clock import FPS, SAMPLES_PER_FRAME

MIN_SHIFT = FPS // 2  # frames; half a second away speech no longer resembles itself
FITTED = 100  # frames on which the colour models are fitted, at most
MIN_PIXELS = 20  # of one class, below which no colour model is fitted
OPEN, LIPS, SKIN = 0, 1, 2
CLASSES = {
    "interior": (OPEN, (LABELS["mouth"],)),
    "teeth": (OPEN, (LABELS["teeth"],)),
    "lips": (LIPS, LIP_LABELS),
    "skin": (SKIN, (LABELS["skin"], LABELS["nose"])),
}


class MouthColours(NamedTuple):
    """One Gaussian per class in RGB and place.

    The place tells a dark mouth from the shadow under the lip.
    """

    kinds: np.ndarray  # [C] OPEN, LIPS or SKIN
    means: np.ndarray  # [C, 5]
    whiten: np.ndarray  # [C, 5, 5]; |whiten (x - mean)| is the Mahalanobis distance
    offsets: np.ndarray  # [C]: log det of the covariance - 2 log prior


def steady_boxes(lips_boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Boxes of one size for the whole clip, hung from the upper edge of `lips_boxes`.

    Returns:
      int32 [T, 4] (row0, row1, col0, col1).
    """
    boxes = np.asarray(lips_boxes)
    tall = min(int(np.percentile(boxes[:, 1] - boxes[:, 0], 98)), height)
    wide = min(int(np.median(boxes[:, 3] - boxes[:, 2])), width)
    row0 = np.clip(boxes[:, 0], 0, height - tall)
    col0 = np.clip((boxes[:, 2] + boxes[:, 3] - wide) // 2, 0, width - wide)
    return np.stack([row0, row0 + tall, col0, col0 + wide], -1).astype(np.int32)


def some_of(frames: np.ndarray) -> np.ndarray:
    """At most `FITTED` of some frame numbers, evenly spread: what the colours are fitted on."""
    return frames[np.unique(np.linspace(0, len(frames) - 1, min(FITTED, len(frames))).astype(int))]


def fit_mouth_colours(
    frames: np.ndarray, labels: np.ndarray, boxes: np.ndarray
) -> MouthColours | None:
    """Fits the colour classes on true frames, at most `FITTED` of them (`some_of`).

    Args:
      frames: uint8 [T, H, W, 3].
      labels: uint8 [T, H, W], `format.LABELS`.
      boxes: int [T, 4].

    Returns:
      None when the mouth is never open, or there is nothing else to tell it from.
    """
    colours = {name: [] for name in CLASSES}
    for i in some_of(np.arange(len(frames))):
        row0, row1, col0, col1 = boxes[i]
        pixels, marks = features(frames[i], boxes[i]), labels[i][row0:row1, col0:col1].ravel()
        for name, (_, members) in CLASSES.items():
            colours[name].append(pixels[np.isin(marks, members)])
    colours = {name: np.concatenate(c) for name, c in colours.items()}
    colours = {name: c for name, c in colours.items() if len(c) >= MIN_PIXELS}
    kinds = [CLASSES[name][0] for name in colours]
    if OPEN not in kinds or len(set(kinds)) < 2:
        return None
    total = sum(map(len, colours.values()))
    models = [_gaussian(c, len(c) / total) for c in colours.values()]
    means, whiten, offsets = (np.stack(part) for part in zip(*models, strict=True))
    return MouthColours(np.array(kinds), means, whiten, offsets)


def _gaussian(colours, prior):
    floor = 0.01**2 * np.eye(colours.shape[1])  # a flat painted class still has some width
    covariance = np.cov(colours.T) + floor
    whiten = np.linalg.inv(np.linalg.cholesky(covariance))
    return colours.mean(0), whiten, np.linalg.slogdet(covariance)[1] - 2.0 * np.log(prior)


def features(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Colour and place of the pixels in a box.

    Args:
      image: [H, W, 3], uint8 or float in [0, 1].
      box: (row0, row1, col0, col1).

    Returns:
      [P, 5]: RGB in [0, 1], and row and column in the box from -0.5 to 0.5.
    """
    row0, row1, col0, col1 = (int(v) for v in box)
    pixels = np.asarray(image[row0:row1, col0:col1], np.float64)
    if image.dtype == np.uint8:
        pixels = pixels / 255.0
    rows, columns = (np.linspace(-0.5, 0.5, n) for n in pixels.shape[:2])
    place = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1)
    return np.concatenate([pixels, place], -1).reshape(-1, 5)


def mouth_opening(image: np.ndarray, box: np.ndarray, colours: MouthColours) -> float:
    """Share of the box's pixels that look like an open mouth.

    Args:
      image: [H, W, 3], uint8 or float in [0, 1].
      box: (row0, row1, col0, col1).
      colours: from `fit_mouth_colours`.
    """
    offset = features(image, box)[None] - colours.means[:, None]  # [C, P, 5]
    distance = np.sum(np.einsum("cij,cpj->cpi", colours.whiten, offset) ** 2, -1)
    nearest = np.argmin(distance + colours.offsets[:, None], 0)
    return float(np.mean(colours.kinds[nearest] == OPEN))


def envelope(samples: np.ndarray, num_frames: int) -> np.ndarray:
    """Loudness of the sound in each frame.

    The root compresses as hearing does, so that one loud vowel does not outweigh a sentence.

    Args:
      samples: int16 at 16 kHz.
      num_frames: T.

    Returns:
      [T]: root of each frame's RMS, smoothed over three frames (120 ms).
    """
    needed = num_frames * SAMPLES_PER_FRAME
    sound = np.zeros(needed)
    part = np.asarray(samples, np.float64)[:needed] / 32768.0
    sound[: len(part)] = part
    loudness = np.sqrt(np.sqrt(np.mean(sound.reshape(num_frames, -1) ** 2, -1)))
    padded = np.pad(loudness, 1, mode="edge")
    return (padded[:-2] + padded[1:-1] + padded[2:]) / 3.0


def correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Pearson correlation of two curves [n]; None where one is constant or shorter than 3."""
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    if len(a) < 3 or a.std() < 1e-9 or b.std() < 1e-9:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def shifted_correlations(opening: np.ndarray, loudness: np.ndarray) -> np.ndarray:
    """Correlations with the sound turned round by every amount of half a second or more.

    Empty for less than a second.
    """
    n = len(opening)
    values = [
        correlation(opening, np.roll(loudness, k)) for k in range(MIN_SHIFT, n - MIN_SHIFT + 1)
    ]
    return np.array([v for v in values if v is not None])


def best_lag(opening: np.ndarray, loudness: np.ndarray, reach: int = 6) -> dict | None:
    """The lag that correlates best, and how well.

    Args:
      opening: [n].
      loudness: [n].
      reach: frames; the largest lag.

    Returns:
      frames (positive: the mouth comes after the sound) and correlation.
    """
    values = {k: correlation(opening, np.roll(loudness, k)) for k in range(-reach, reach + 1)}
    values = {k: v for k, v in values.items() if v is not None}
    if not values:
        return None
    lag = max(values, key=values.get)
    return {"frames": lag, "correlation": values[lag]}


def check(opening: np.ndarray, samples: np.ndarray) -> dict:
    """Correlation of an opening curve with its own sound, and with the same sound shifted.

    Args:
      opening: [n].
      samples: int16 at 16 kHz.

    Returns:
      envelope_correlation (or None), envelope_lag (see `best_lag`) and
      envelope_correlation_shifted: None, or max, mean, how many shifts there are and the share
      of them that the true one beats.
    """
    loudness = envelope(samples, len(opening))
    true = correlation(opening, loudness)
    shifted = shifted_correlations(opening, loudness)
    if true is None or not len(shifted):
        return {
            "envelope_correlation": true,
            "envelope_correlation_shifted": None,
            "envelope_lag": None,
        }
    return {
        "envelope_correlation": true,
        "envelope_lag": best_lag(opening, loudness),
        "envelope_correlation_shifted": {
            "max": float(shifted.max()),
            "mean": float(shifted.mean()),
            "shifts": len(shifted),
            "share_beaten": float(np.mean(true > shifted)),
        },
    }
