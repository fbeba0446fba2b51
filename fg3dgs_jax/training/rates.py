"""Adam over everything learnt, with the learning rate of each parameter from one table.

A stage's table (`config.Rates`) is a list of path patterns, each with a schedule, or None for what
is frozen. The first pattern that fits a parameter's path counts, and every parameter must be
covered. `freeze` and `update` read the same table. Paths are REGION/gaussians/FIELD and
REGION/motion/COLLECTION/MODULE/../NAME. The colours `sh` have two: sh/band_0, the constant band,
and sh/rest.
"""

import dataclasses
import functools
import itertools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fg3dgs_jax.config.defaults import Rates
from fg3dgs_jax.config.settings import Schedule
from fg3dgs_jax.training.ffi import adam as adam_ffi
from fg3dgs_jax.types import Array

# TalkingGaussian: Adam as in 3DGS for the Gaussians, betas (0.9, 0.99) for the motion nets. Their
# eps is as small: eyes and mouth cover 1% of the picture, a gradient of the mean over all of it
# reaches their nets as 1e-8 to 1e-13, and Adam's usual 1e-8 would leave them where they started.
DECAYS, EPS = {"gaussians": (0.9, 0.999), "motion": (0.9, 0.99)}, 1e-15
GAUSSIANS, MOTION = (optax.scale_by_adam(*DECAYS[part], eps=EPS) for part in DECAYS)
OPTIMIZERS = {"gaussians": GAUSSIANS, "motion": MOTION}


@dataclasses.dataclass(frozen=True)
class LeafRate:
    """The rate of one parameter, or of a colour's first band and of the others."""

    schedules: tuple[Schedule | None, ...]

    @property
    def moves(self) -> bool:
        """Whether any part of the parameter is learnt."""
        return any(schedule is not None for schedule in self.schedules)

    def at(self, progress: Array, value: Array) -> Array | float:
        """The rate at `progress` in [0, 1] of the stage, to multiply a step of `value` with."""
        rates = [0.0 if s is None else at(s, progress) for s in self.schedules]
        if len(rates) == 1:
            return rates[0]
        band_0, rest = rates
        return jnp.full(value.shape[-2], rest).at[0].set(band_0)[:, None]


def at(schedule: Schedule, progress: Array) -> Array:
    """A schedule's rate at `progress` in [0, 1], by optax."""
    knots = schedule.knots
    pieces, begins = [], []
    for (begin, start), (end, stop) in itertools.pairwise(knots):
        if end > begin:  # else a jump
            # In shares of the stage instead of steps: optax takes floats where its types say int.
            decay: Any = optax.exponential_decay
            pieces.append(decay(start, end - begin, stop / start))
            begins.append(begin)
    rate: Any = optax.join_schedules(pieces, begins[1:])(progress)
    return rate


def table(regions: Any, rates: Rates) -> Any:
    """The LeafRate of every parameter, in the structure of `regions` ({region: Region}).

    Raises:
      ValueError: a parameter that no pattern covers.
    """

    def leaf(path, _):
        name = "/".join(str(getattr(p, "name", getattr(p, "key", p))) for p in path)
        names = (f"{name}/band_0", f"{name}/rest") if name.endswith("/gaussians/sh") else (name,)
        return LeafRate(tuple(first_match(rates, n) for n in names))

    return jax.tree_util.tree_map_with_path(leaf, regions)


def first_match(rates: Rates, name: str) -> Schedule | None:
    """The schedule of the first pattern that fits a parameter's path.

    Raises:
      ValueError: none fits.
    """
    for pattern, schedule in rates.items():
        if re.fullmatch(pattern, name):
            return schedule
    raise ValueError(
        f"no learning rate covers {name}; expected a pattern in the stage's rates that matches it, "
        f"with None where it is frozen (there are {', '.join(rates)})"
    )


def init(regions: Any) -> dict[str, Any]:
    """Optimizer state of {region: Region}: Adam's moments for the Gaussians and for the nets."""
    return {
        part: {r: optimizer.init(getattr(v, part)) for r, v in regions.items()}
        for part, optimizer in OPTIMIZERS.items()
    }


def freeze(regions: Any, rates: Any) -> Any:
    """The same regions, without gradient to what the stage does not move.

    Nothing that leads only there is then computed. `rates`: see `table`.
    """

    def stop(rate, x):
        return x if rate.moves else jax.lax.stop_gradient(x)

    return jax.tree.map(stop, rates, regions)


def update(grads: Any, state: dict, regions: Any, rates: Any, progress: Array) -> tuple[Any, dict]:
    """One Adam step on {region: Region}; returns (regions, state). Frozen leaves do not change.

    Args:
      grads: as `regions`.
      state: of `init`.
      regions: the parameters.
      rates: see `table`.
      progress: share of the stage done, in [0, 1].
    """
    if adam_ffi.is_available():
        return _update_at_once(grads, state, regions, rates, progress)
    new_regions, new_state = {}, {part: {} for part in OPTIMIZERS}
    for r, region in regions.items():
        moved = {}
        for part, optimizer in OPTIMIZERS.items():
            values, leaf_rates = getattr(region, part), getattr(rates[r], part)
            step, new_state[part][r] = _adam(
                optimizer, getattr(grads[r], part), state[part][r], leaf_rates
            )
            moved[part] = jax.tree.map(
                lambda rate, x, d: x - rate.at(progress, x) * d if rate.moves else x,
                leaf_rates,
                values,
                step,
            )
        new_regions[r] = region._replace(**moved)
    return new_regions, new_state


def _adam(optimizer, grads, state, rates):
    """One Adam update; the moments of frozen leaves stay as they are.

    A wholly frozen group also keeps its bias-correction count.
    """
    step, new = optimizer.update(grads, state)
    moves = jax.tree.map(lambda rate: rate.moves, rates)
    if not any(jax.tree.leaves(moves)):
        return step, state
    keep = functools.partial(jax.tree.map, lambda m, a, b: a if m else b, moves)
    return step, new._replace(mu=keep(new.mu, state.mu), nu=keep(new.nu, state.nu))


def _update_at_once(grads, state, regions, rates, progress):
    """`update` with all parameters in one custom call."""
    schedules = dict.fromkeys(s for rate in jax.tree.leaves(rates) for s in rate.schedules)
    now = {s: jnp.zeros(()) if s is None else at(s, progress) for s in schedules}
    new_regions, new_state = dict(regions), {part: dict(state[part]) for part in OPTIMIZERS}
    groups, leaves = {}, []
    for r, part in ((r, part) for r in regions for part in OPTIMIZERS):
        old, values = state[part][r], getattr(regions[r], part)
        trees = (getattr(rates[r], part), values, getattr(grads[r], part), old.mu, old.nu)
        rows = list(zip(*map(jax.tree.leaves, trees), strict=True))
        if not any(rate.moves for rate, *_ in rows):
            continue
        groups[r, part] = rows
        new_state[part][r] = old._replace(count=optax.safe_increment(old.count))
        for rate, value, gradient, mean, square in rows:
            first, rest = now[rate.schedules[0]], now[rate.schedules[-1]]
            row, band_0 = (1, 0) if first is rest else (math.prod(value.shape[1:]), value.shape[-1])
            leaf = adam_ffi.Leaf(
                value,
                gradient,
                mean,
                square,
                rates=(first, rest),
                row=row,
                first=band_0,
                decays=DECAYS[part],
                count=new_state[part][r].count,
            )
            leaves += [leaf] * rate.moves
    moved = iter(adam_ffi.step(leaves, EPS) if leaves else [])
    for (r, part), rows in groups.items():
        kept = [(value, mean, square) for _, value, _, mean, square in rows]
        new = [next(moved) if rate.moves else k for (rate, *_), k in zip(rows, kept, strict=True)]
        structure = jax.tree.structure(getattr(regions[r], part))
        values, mu, nu = (structure.unflatten(x) for x in zip(*new, strict=True))
        new_regions[r] = new_regions[r]._replace(**{part: values})
        new_state[part][r] = new_state[part][r]._replace(mu=mu, nu=nu)
    return new_regions, new_state
