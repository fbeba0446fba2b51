"""How much a render changes from frame to frame, against the truth: flicker and dullness.

The energy of a change is the mean of its square over the pixels of a place and the three channels:
of the render r, E_r = mean (r_t - r_{t-1})^2; of the truth x, E_x = mean (x_t - x_{t-1})^2; of what
the one has and the other has not, E_d = mean ((r_t - r_{t-1}) - (x_t - x_{t-1}))^2. Each is summed
over all pairs of consecutive frames of the split before any quotient is taken, so that pairs in
which nothing moves do not divide by nothing.

- ratio = E_r / E_x. 1 is right; above it the render flickers, below it is dull.
- excess = E_d / E_x. 0 is right; a still image has 1. Sensor noise and what the codec adds to the
  true frames are changes too, and no render has them: the excess of a good one is not 0.

Both are reported over the whole frame, in the lips box and in the boxes of both eyes together. The
boxes of a pair are those of its later frame.
"""

import numpy as np

from fg3dgs_jax.evaluation import metrics

PLACES = ("frame", "lips", "eyes")


class TemporalEnergy:
    """Watches frames as they are drawn (see `perception`): `add` each in order, then `result`."""

    def __init__(self, index, lips, eyes):
        """index: int [n], numbers of the frames to come; lips: boxes [n, 4]; eyes: [n, 2, 4]."""
        self.index, self.lips, self.eyes = np.asarray(index), lips, eyes
        self.seen, self.before = 0, None
        self.energies = []  # [3 places, 3]: render, truth, difference of the two changes

    def add(self, truth, image):
        """truth, image: float [H, W, 3] in [0, 1]."""
        now, at = (np.asarray(truth, np.float32), np.asarray(image, np.float32)), self.seen
        if self.before is not None and self.index[at] == self.index[at - 1] + 1:
            true, drawn = (new - old for new, old in zip(now, self.before, strict=True))
            boxes = ([(0, len(true), 0, true.shape[1])], [self.lips[at]], self.eyes[at])
            self.energies.append([energies(drawn, true, place) for place in boxes])
        self.seen, self.before = at + 1, now

    def result(self) -> tuple[dict | None, str]:
        """{place}_ratio and {place}_excess of `PLACES`, None where the truth does not change."""
        if not self.energies:
            return None, "not measured: no two consecutive frames"
        found = {}
        for place, (drawn, true, odd) in zip(PLACES, np.mean(self.energies, 0), strict=True):
            found[f"{place}_ratio"] = float(drawn / true) if true > 0 else None
            found[f"{place}_excess"] = float(odd / true) if true > 0 else None
        return found, f"{len(self.energies)} pairs of consecutive frames"


def energies(drawn, true, boxes) -> tuple[float, float, float]:
    """Mean squares of two changes [H, W, 3] and of their difference, over the pixels of `boxes`."""
    drawn, true = (metrics.pixels(x, boxes).astype(np.float64) for x in (drawn, true))
    return tuple(float(np.mean(x**2)) for x in (drawn, true, drawn - true))
