"""Curves of a clip over its time, drawn over the loudness of its sound, with OpenCV alone."""

import math
from typing import NamedTuple

import cv2
import numpy as np

from fg3dgs_jax.media.clock import FPS

# One colour a curve (RGB).
CURVES = (
    (200, 30, 30), (20, 130, 20), (30, 60, 220), (180, 120, 0), (140, 0, 160), (0, 140, 150),
)  # fmt: skip


SOUND, GAP, CUT, GREY = (214, 219, 228), (255, 205, 190), (255, 120, 0), (90, 90, 90)
LEFT, RIGHT, FOOT = 190, 10, 22  # px about the strips: names and scale, nothing, seconds
TICKS = (0.5, 1, 2, 5, 10, 30, 60, 300)  # s


class Strip(NamedTuple):
    """Curves that share one scale."""

    title: str  # with the unit
    curves: dict[str, np.ndarray]  # name -> [T]
    scale: tuple[float, float] | None = None  # (low, high); None: what the curves reach


def draw(strips, loudness, valid, cuts=(), first=0, size=(1500, 110)):
    """uint8 picture: strips one below the other, all over the sound and on one clock.

    Args:
      strips: `Strip`s.
      loudness: [T], 0 or more; the grey hill behind every strip.
      valid: bool [T], False (pink) where no face was seen.
      cuts: frames that begin another scene (orange lines).
      first: number of the first row in the clip, for the clock.
      size: (width, height) px of one strip.
    """
    width, height = size
    span = np.linspace(LEFT, width - RIGHT, len(loudness))
    out = np.full((height * len(strips) + FOOT, width, 3), 255, np.uint8)
    hill = np.sqrt(np.asarray(loudness) / max(np.max(loudness), 1e-9))  # quiet speech shows too
    for k, strip in enumerate(strips):
        part = out[k * height : (k + 1) * height]
        _fill(part, span, hill, SOUND)
        _fill(part, span, ~np.asarray(valid, bool) * 1.0, GAP)
        _curves(part, span, strip)
        cv2.line(part, (0, height - 1), (width, height - 1), GREY, 1)
    inside = [c for c in cuts if first <= c < first + len(loudness)]
    for x in np.rint(span[np.array(inside, int) - first]).astype(int):
        cv2.line(out, (int(x), 0), (int(x), height * len(strips)), CUT, 2)
    _clock(out, span, first)
    return out


def _fill(part, span, heights, colour):
    """The area below heights [T] in [0, 1]."""
    bottom = len(part) - 1
    top = np.column_stack([span, bottom - heights * (bottom - 4)])
    corners = np.concatenate([[[span[0], bottom]], top, [[span[-1], bottom]]])
    cv2.fillPoly(part, [np.rint(corners).astype(np.int32)], colour)


def _curves(part, span, strip):
    """The curves of a strip on their common scale, which stands at the left."""
    every = np.concatenate([np.asarray(v, np.float64) for v in strip.curves.values()])
    low, high = strip.scale or (every.min(), every.max())
    rows = len(part)
    _write(part, strip.title, 16, (0, 0, 0))
    for k, (name, values) in enumerate(strip.curves.items()):
        y = rows - 8 - (np.asarray(values) - low) / max(high - low, 1e-9) * (rows - 16)
        line = np.rint(np.column_stack([span, y]) * 16).astype(np.int32)
        cv2.polylines(part, [line], False, CURVES[k], 1, cv2.LINE_AA, 4)
        _write(part, name, 34 + 16 * k, CURVES[k])
    for text, y in ((f"{high:.3g}", 14), (f"{low:.3g}", rows - 6)):
        (wide, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.4, 1)
        _write(part, text, y, GREY, LEFT - 6 - wide)


def _clock(out, span, first):
    """Seconds below the strips."""
    seconds = (len(span) - 1) / FPS
    step = next((t for t in TICKS if seconds / t <= 16), TICKS[-1])
    for k in range(int(np.ceil(first / FPS / step)), int((first / FPS + seconds) / step) + 1):
        x = int(np.interp(k * step * FPS - first, np.arange(len(span)), span))
        cv2.line(out, (x, len(out) - FOOT), (x, len(out) - FOOT + 4), GREY, 1)
        _write(out, f"{k * step:g} s", len(out) - 5, GREY, min(x - 8, out.shape[1] - 40))


def _write(picture, text, y, colour, x=6):
    cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)


def plot_curves(curves, fps: float, width: int = 1200, lane: int = 130) -> np.ndarray:
    """uint8 picture of named curves [n] over time, one lane each, every lane scaled to its own
    range.

    curves: {name: array of floats, NaN where unknown}. Returns [lanes * lane + axis, width, 3].
    """
    palette = ((90, 90, 90), (200, 60, 40), (40, 90, 200), (30, 140, 70))
    length = max(map(len, curves.values()))
    picture = np.full((lane * len(curves) + 30, width, 3), 255, np.uint8)
    for row, (name, values) in enumerate(curves.items()):
        values = np.asarray(values, np.float64)
        good = np.isfinite(values)
        low, high = (values[good].min(), values[good].max()) if good.any() else (0.0, 1.0)
        top, colour = row * lane, palette[row % len(palette)]
        label = f"{name}  [{low:.3g} .. {high:.3g}]"
        cv2.putText(
            picture, label, (8, top + 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA
        )
        x = 8 + np.arange(len(values)) * (width - 16) / max(length - 1, 1)
        y = top + lane - 8 - (values - low) / max(high - low, 1e-9) * (lane - 34)
        for piece in np.split(np.arange(len(values)), np.flatnonzero(~good)):
            piece = piece[good[piece]]
            line = np.stack([x[piece], y[piece]], -1).round().astype(np.int32)
            cv2.polylines(picture, [line[:, None]], False, colour, 2, cv2.LINE_AA)
        cv2.line(picture, (0, top + lane - 1), (width, top + lane - 1), (225, 225, 225), 1)
    seconds = length / fps
    step = max(1, math.ceil(seconds / 15))
    for second in range(0, int(seconds) + 1, step):
        column = int(8 + second * fps * (width - 16) / max(length - 1, 1))
        at = (column, len(curves) * lane + 20)
        cv2.putText(
            picture, f"{second} s", at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (80, 80, 80), 1, cv2.LINE_AA
        )
    return picture


def write_png(path, image) -> None:
    """uint8 RGB [H, W, 3] -> PNG."""
    cv2.imwrite(str(path), np.ascontiguousarray(image[..., ::-1]))
