"""Curves of a clip over its time, drawn over the loudness of its sound, with OpenCV alone."""

from typing import NamedTuple

import cv2
import numpy as np

from fg3dgs_jax.clip.processed import FPS
from fg3dgs_jax.preprocessing.report.pictures import CURVES

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
