"""What looks at all frames of a split, in their order, as they are drawn."""

from typing import Any, Protocol

import numpy as np


class Watcher(Protocol):
    """Takes in frames."""

    def add(self, truth: np.ndarray, image: np.ndarray) -> None:
        """Takes in one true and one drawn frame, float [H, W, 3] in [0, 1]."""
        ...


class Measure(Watcher, Protocol):
    """Takes in frames and returns a figure of all of them."""

    def result(self) -> tuple[Any, str]:
        """Returns the value for metrics.json, or None, and its source or the reason."""
        ...
