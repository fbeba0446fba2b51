"""Curves over a clip's time and over shifts of its sound, as pictures.

Matplotlib draws them, without pyplot: figures of their own leave the global state of a notebook
alone. It is imported where it draws, for it takes half a second to load.
"""

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from fg3dgs_jax.media.clock import FPS
from fg3dgs_jax.media.whole_files import whole

SOUND, GAP, CUT = "#d6dbe4", "#ffcdbe", "#ff7800"  # loudness, no face found, another scene begins
_DPI = 100  # with it, a figure of 12 inches has 1200 px


class Strip(NamedTuple):
    """Curves that share one scale."""

    title: str  # with the unit
    curves: dict[str, np.ndarray]  # name -> [T]
    scale: tuple[float, float] | None = None  # (low, high); None: what the curves reach


def plot_strips(
    strips: Sequence[Strip],
    loudness: np.ndarray,
    valid: np.ndarray,
    cuts: Sequence[int] = (),
    first: int = 0,
    size: tuple[int, int] = (1500, 130),
) -> np.ndarray:
    """Draws strips one below the other, all over the sound and on one clock.

    Args:
      strips: what to draw, from the top.
      loudness: [T], 0 or more; the grey hill behind every strip.
      valid: bool [T], False (pink) where no face was found.
      cuts: frames of the clip that begin another scene (orange lines).
      first: number of the first row in the clip, for the clock.
      size: (width, height) px of one strip.

    Returns:
      uint8 [len(strips) * height, width, 3].
    """
    width, height = size
    times = (first + np.arange(len(loudness))) / FPS
    seconds = [cut / FPS for cut in cuts if first <= cut < first + len(loudness)]
    hill = np.sqrt(np.asarray(loudness) / max(np.max(loudness), 1e-9))  # quiet speech shows too
    figure, lanes = _lanes(len(strips), width, height)
    for lane, strip in zip(lanes, strips, strict=True):
        behind = lane.twinx()  # a scale of its own, 0 to 1, below the curves
        behind.set(ylim=(0, 1), yticks=())
        behind.fill_between(times, hill, color=SOUND, linewidth=0)
        missing = ~np.asarray(valid, bool)
        behind.fill_between(times, 1, where=missing, step="mid", color=GAP, linewidth=0)
        for second in seconds:
            behind.axvline(second, color=CUT)
        lane.set_zorder(behind.get_zorder() + 1)
        lane.patch.set_visible(False)
        for name, values in strip.curves.items():
            lane.plot(times, values, label=name, linewidth=1)
        lane.set_title(strip.title, loc="left", fontsize="small")
        lane.set(xlim=(times[0], times[-1]), ylim=strip.scale)
        lane.legend(loc="upper left", fontsize="small", framealpha=0.5)
    lanes[-1].set_xlabel("s", loc="right")
    return _pixels(figure)


def plot_curves(
    curves: Mapping[str, np.ndarray], fps: float, width: int = 1200, height: int = 130
) -> np.ndarray:
    """Draws curves over time, one below the other, each scaled to its own range.

    Args:
      curves: name -> floats [n], NaN where unknown.
      fps: values a second.
      width: px.
      height: px of one curve.

    Returns:
      uint8 [len(curves) * height, width, 3].
    """
    figure, lanes = _lanes(len(curves), width, height)
    for k, (lane, (name, values)) in enumerate(zip(lanes, curves.items(), strict=True)):
        lane.plot(np.arange(len(values)) / fps, np.asarray(values, np.float64), color=f"C{k}")
        lane.set_title(name, loc="left", fontsize="small")
        lane.margins(x=0)
    lanes[-1].set_xlabel("s", loc="right")
    return _pixels(figure)


def plot_by_shift(
    curves: Mapping[str, Sequence[float]], title: str, size: tuple[int, int] = (760, 420)
) -> np.ndarray:
    """Draws scores against shifts of the sound, on common axes.

    Args:
      curves: label -> a score [2 reach + 1] for each shift from -reach frames to reach.
      title: above the axes.
      size: (width, height) px.

    Returns:
      uint8 [height, width, 3].
    """
    figure, (axes,) = _lanes(1, *size)
    for label, values in curves.items():
        reach = len(values) // 2
        axes.plot(np.arange(-reach, reach + 1), values, label=label)
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set(xlabel=f"sound later than picture, frames of {1000 / FPS:.0f} ms", title=title)
    axes.legend(loc="upper left")
    axes.margins(x=0)
    return _pixels(figure)


def write_png(path: os.PathLike | str, image: np.ndarray) -> None:
    """Writes uint8 RGB [H, W, 3] as PNG, whole or not at all."""
    with whole(path) as part:
        part.write_bytes(cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))[1].tobytes())


def _lanes(count, width, height):
    """A figure of `count` axes, one below the other, of width x height px each; and the axes."""
    from matplotlib.figure import Figure

    size = (width / _DPI, count * height / _DPI)
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    lanes = figure.subplots(count, sharex=True, squeeze=False)[:, 0]
    for lane in lanes:
        lane.tick_params(labelsize="small")
        lane.grid(axis="x", color="0.9")
    return figure, lanes


def _pixels(figure):
    """uint8 [H, W, 3] of a figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
