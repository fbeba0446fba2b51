"""How many Gaussians a region has room for, and how many (tile, Gaussian) pairs its pictures have.

Both are static numbers of a program. A CPU pays for every slot in every step, and its lists grow by
themselves. A GPU hardly feels a slot, but compiles for half a minute when a number changes: there
both begin large, and slots grow by four.
"""

from collections.abc import Mapping
from typing import Any

from fg3dgs_jax import native, rasterizer
from fg3dgs_jax.config import Config
from fg3dgs_jax.config.defaults import Population

# On a GPU a region begins with so many times the slots that its config names.
AT_FIRST = {"face": 4, "eyes": 2, "mouth": 2}


def on_gpu() -> bool:
    """Whether a GPU draws."""
    return native.resolve_backend() == "cuda"


def first(population: Population, region: str) -> int:
    """Slots at the start of a run."""
    if not on_gpu():
        return population.capacity
    return _within(population, population.capacity, AT_FIRST[region])


def more(population: Population, slots: int) -> int:
    """Slots of a region whose `slots` do not suffice; as many as now where it has its limit."""
    return _within(population, slots, 4 if on_gpu() else 2)


def _within(population, slots, factor):
    """`slots` doubled up to `factor` times, within the limit of their number."""
    limit = population.max_capacity or 0
    while factor > 1 and factor * slots > limit:
        factor //= 2
    return factor * slots


def monitor_lists(
    config: Config, alive: Mapping[str, Any], width: int, height: int
) -> rasterizer.CapacityMonitor:
    """Watches the regions' lists on a GPU, long enough for all the slots that there may be.

    Args:
      config: of the run.
      alive: {region: [..., N]}, its slots.
      width: of a picture, px.
      height: px.
    """
    if not on_gpu():
        return rasterizer.CapacityMonitor({})
    most = {
        r: max(getattr(config.gaussians, r).max_capacity or 0, slots.shape[-1])
        for r, slots in alive.items()
    }
    return rasterizer.CapacityMonitor(
        {r: rasterizer.default_capacity(n, width, height) for r, n in most.items()}
    )
