"""How long the lists of (tile, Gaussian) pairs are on a GPU.

The length is a static number of a program, chosen by what pictures needed.
"""

from collections.abc import Mapping

FILL = 0.8  # the most of a list that pictures may need before it grows


def suggest_capacity(n_isects: int) -> int:
    """Chooses the least power of two of which `n_isects` pairs fill at most FILL."""
    capacity = 1
    while n_isects > FILL * capacity:
        capacity *= 2
    return capacity


class CapacityMonitor:
    """Keeps the `isect_capacity` of pictures, each known by a name, ahead of what they need.

    A capacity shapes the program, so growing one means compiling again. Call `update` between
    dispatches. Only names given at the start are watched. A CPU's lists grow by themselves, so
    there the monitor is given none.

    Attributes:
      capacities: pairs by name.
    """

    capacities: dict[str, int]

    def __init__(self, capacities: Mapping[str, int]) -> None:
        self.capacities = dict(capacities)

    def update(self, n_isects: Mapping[str, int]) -> bool:
        """Grows each capacity that its picture fills beyond FILL.

        Args:
          n_isects: pairs that the pictures needed, by name.

        Returns:
          Whether any capacity has changed.
        """
        grown = {
            name: suggest_capacity(n_isects[name])
            for name, capacity in self.capacities.items()
            if n_isects[name] > FILL * capacity
        }
        self.capacities = self.capacities | grown
        return bool(grown)
