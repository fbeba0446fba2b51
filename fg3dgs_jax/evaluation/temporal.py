"""How much a render changes from frame to frame, against the truth: flicker and dullness.

The energy of a change is the mean of its square over the pixels of a place and the three channels.

- Of the render r: E_r = mean (r_t - r_{t-1})^2.
- Of the truth x: E_x = mean (x_t - x_{t-1})^2.
- Of the difference of both changes: E_d = mean ((r_t - r_{t-1}) - (x_t - x_{t-1}))^2.

Each is summed over all pairs of consecutive frames before any quotient is taken. Pairs in which
nothing moves therefore cause no division by zero.

- ratio = E_r / E_x. 1 is right. Above 1 the render flickers, below 1 it is dull.
- excess = E_d / E_x. 0 is right, a still image has 1. Sensor noise and the codec's errors in the
  true frames are changes too, and no render has them: the excess of a good one is not 0.

Both are reported over the whole frame, in the lips box and in the boxes of both eyes together. The
boxes of a pair are those of its later frame.
"""

import numpy as np
from numpy.typing import ArrayLike

from fg3dgs_jax.evaluation import metrics

PLACES = ("frame", "lips", "eyes")


class TemporalEnergy:
    """The energy of changes in a render, against the truth. A `watcher.Measure`."""

    def __init__(self, index: np.ndarray, lips: np.ndarray, eyes: np.ndarray):
        """Prepares for frames in their order.

        Args:
          index: int [n], numbers of the frames to come.
          lips: boxes [n, 4].
          eyes: boxes [n, 2, 4].
        """
        self.index, self.lips, self.eyes = np.asarray(index), lips, eyes
        self.count = 0
        self.previous: tuple[np.ndarray, np.ndarray] | None = None  # truth, render
        # Of each pair [3 places, 3]: render, truth, difference of the two changes.
        self.energies: list[list[tuple[float, float, float]]] = []

    def add(self, truth: np.ndarray, image: np.ndarray) -> None:
        """Takes in one pair of frames [H, W, 3] in [0, 1]."""
        now, at = (np.asarray(truth, np.float32), np.asarray(image, np.float32)), self.count
        if self.previous is not None and self.index[at] == self.index[at - 1] + 1:
            true, drawn = (new - old for new, old in zip(now, self.previous, strict=True))
            boxes = ([(0, len(true), 0, true.shape[1])], [self.lips[at]], self.eyes[at])
            self.energies.append([energies(drawn, true, place) for place in boxes])
        self.count, self.previous = at + 1, now

    def result(self) -> tuple[dict | None, str]:
        """Returns {place}_ratio and {place}_excess of `PLACES`, and the number of pairs.

        A figure is None where the truth does not change.
        """
        if not self.energies:
            return None, "not measured: no two consecutive frames"
        figures = {}
        for place, (drawn, true, odd) in zip(PLACES, np.mean(self.energies, 0), strict=True):
            figures[f"{place}_ratio"] = float(drawn / true) if true > 0 else None
            figures[f"{place}_excess"] = float(odd / true) if true > 0 else None
        return figures, f"{len(self.energies)} pairs of consecutive frames"


def energies(drawn: np.ndarray, true: np.ndarray, boxes: ArrayLike) -> tuple[float, float, float]:
    """Returns mean squares, in boxes [k, 4], of two changes [H, W, 3] and of their difference."""
    drawn, true = (metrics.pixels(x, boxes).astype(np.float64) for x in (drawn, true))
    difference = drawn - true
    return float(np.mean(drawn**2)), float(np.mean(true**2)), float(np.mean(difference**2))
