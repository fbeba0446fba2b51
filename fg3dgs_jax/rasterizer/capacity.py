"""How long the lists of a GPU are: a program's static number, chosen by what pictures needed."""

from collections.abc import Mapping

FILL = 0.8  # the most of a list that pictures may need before it grows


def suggest_capacity(n_isects: int) -> int:
    """The least power of two of which `n_isects` (tile, Gaussian) pairs fill at most FILL."""
    capacity = 1
    while n_isects > FILL * capacity:
        capacity *= 2
    return capacity


class CapacityMonitor:
    """Keeps the `isect_capacity` of pictures, each known by a name, ahead of what they need.

    A capacity shapes the program, so growing one means compiling again: ask `update` between
    dispatches. Only names given at the start are watched; a CPU's lists grow by themselves, so
    there the monitor is given none.
    """

    def __init__(self, capacities: Mapping[str, int]):
        self.capacities = dict(capacities)

    def update(self, n_isects: Mapping[str, int]) -> bool:
        """Grows what `n_isects`, by name, fill beyond FILL; whether any capacity has changed."""
        grown = {
            name: suggest_capacity(n_isects[name])
            for name, capacity in self.capacities.items()
            if n_isects[name] > FILL * capacity
        }
        self.capacities = self.capacities | grown
        return bool(grown)
