"""Rows of a clip, one a frame: gaps bridged, noise smoothed, never across a cut."""

from collections.abc import Sequence

import numpy as np


def bridge(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """float32 [T, ...]: rows that are not valid are interpolated between those that are."""
    flat, times = np.array(values, np.float32).reshape(len(values), -1), np.arange(len(values))
    if valid.any() and not valid.all():
        for k in range(flat.shape[1]):
            flat[~valid, k] = np.interp(times[~valid], times[valid], flat[valid, k])
    return flat.reshape(np.shape(values))


def smooth(
    values: np.ndarray, valid: np.ndarray | None = None, cuts: Sequence[int] = ()
) -> np.ndarray:
    """Savitzky-Golay over axis 0, window 5, order 3: no lag, peaks kept.

    Args:
      values: [T, ...].
      valid: bool [T] or None; rows that are not valid are bridged before.
      cuts: the rows that begin another scene; what comes before them is not mixed in.
    """
    values = np.array(values, np.float32)
    if valid is not None:
        values = bridge(values, valid)
    return np.concatenate([_smooth_scene(scene) for scene in np.split(values, cuts)])


def scenes(count: int, cuts: Sequence[int] = ()) -> np.ndarray:
    """Returns int [T], the number of the scene that each of `count` rows belongs to."""
    return np.searchsorted(np.asarray(cuts, int), np.arange(count), side="right")


def _smooth_scene(values):
    if len(values) < 5:
        return values
    padded = np.concatenate([values[:1]] * 2 + [values] + [values[-1:]] * 2)
    kernel = np.array([-3, 12, 17, 12, -3], np.float32) / 35
    return sum(w * padded[k : k + len(values)] for k, w in enumerate(kernel))
