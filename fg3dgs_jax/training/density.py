"""Density control on arrays of a fixed capacity: clone, split, prune. Pure; shapes never change.

New Gaussians go into dead slots, those with the largest gradients first; where there are fewer dead
slots than candidates the rest wait, and the count of those that waited is returned.

The capacity is a static number of a program. A CPU pays for every slot in every step. A GPU hardly
feels a slot, but compiles for half a minute when their number changes: there a region begins with
more of them, and gets four times as many where a CPU doubles.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fg3dgs_jax import geometry, native
from fg3dgs_jax.config.defaults import Density, Population
from fg3dgs_jax.rasterizer.sh import SH_BAND_0
from fg3dgs_jax.types import Array, Gaussians

SPLIT_SHRINK = 1.6  # 3DGS: children are this much smaller than their parent
# On a GPU a region begins with so many times the slots that its config names.
AT_FIRST_ON_GPU = {"face": 4, "eyes": 2, "mouth": 2}
KEY_NEAR, KEY_FAR = 225 / 255, 30 / 255  # TalkingGaussian: greener than this is key colour


class Stats(NamedTuple):
    """What the steps since the last control have seen of each Gaussian."""

    gradient: Array  # [N] sum of |dL/d means2d| in NDC units
    count: Array  # [N] frames that saw it


class Slots(NamedTuple):
    """A region's Gaussians and all that goes with each of them."""

    gaussians: Gaussians
    moments: optax.ScaleByAdamState  # Adam's, in the shape of the Gaussians
    alive: Array  # [N] bool
    stats: Stats


def init_stats(capacity: int) -> Stats:
    """Nothing seen yet."""
    return Stats(jnp.zeros(capacity), jnp.zeros(capacity))


def accumulate(stats: Stats, v_means2d: Array, radii: Array, width: int, height: int) -> Stats:
    """Adds one frame: v_means2d [N, 2] px (the probe's gradient), radii [N, 2] (0: not seen)."""
    ndc = v_means2d * 0.5 * jnp.array([width, height])  # 3DGS counts in NDC units
    seen = (radii > 0).all(-1)
    norm = jnp.where(seen, jnp.linalg.norm(ndc, axis=-1), 0.0)
    return Stats(stats.gradient + norm, stats.count + seen)


def control(
    key: Array, slots: Slots, rule: Density, progress: Array, prune_green: bool
) -> tuple[Slots, dict[str, Array]]:
    """One round of density control.

    Args:
      key: consumed.
      slots: the region's; moments of new Gaussians start from zero.
      rule: the region's.
      progress: share of the stage done.
      prune_green: also prunes what has learnt the key colour (0, 1, 0).

    Returns:
      The slots, with statistics that start anew, and {"added", "pruned", "waiting"}.
    """
    gaussians, moments, alive, stats = slots
    scales = jax.nn.softplus(gaussians.raw_scales)
    opacity = jax.nn.sigmoid(gaussians.logit_opacities)
    low, high = rule.min_opacity
    prune = opacity < low + (high - low) * progress
    prune |= scales.max(-1) > rule.max_scale
    if prune_green:
        color = SH_BAND_0 * gaussians.sh[:, 0] + 0.5
        prune |= (color[:, 0] < KEY_FAR) & (color[:, 1] > KEY_NEAR) & (color[:, 2] < KEY_FAR)
    prune &= alive
    alive = alive & ~prune

    mean_gradient = stats.gradient / jnp.maximum(stats.count, 1.0)
    candidates = alive & (mean_gradient > rule.grad_threshold)
    free = ~alive
    num = jnp.minimum(candidates.sum(), free.sum())
    order = jnp.argsort(jnp.where(candidates, -mean_gradient, jnp.inf))
    places = jnp.argsort(alive, stable=True)  # dead ones first, in order
    capacity = alive.shape[0]
    used = jnp.arange(capacity) < num
    target = jnp.where(used, places, capacity)  # out of range: dropped

    split = scales.max(-1) > rule.split_scale
    # Both children of a split are drawn from the parent's own Gaussian; a clone stays in place.
    noise = jax.random.normal(key, (2, capacity, 3)) * scales * split[:, None]
    rotation = geometry.quat_to_rotmat(gaussians.quats)
    offsets = jnp.einsum("nij,knj->kni", rotation, noise)
    shrunk = jnp.where(
        split[:, None], jnp.log(jnp.expm1(scales / SPLIT_SHRINK)), gaussians.raw_scales
    )
    child = gaussians.replace(means=gaussians.means + offsets[1], raw_scales=shrunk)

    parents = jnp.zeros(capacity, bool).at[jnp.where(used, order, capacity)].set(True, mode="drop")
    parents = parents[:, None]
    kept = gaussians.replace(
        means=jnp.where(parents, gaussians.means + offsets[0], gaussians.means),
        raw_scales=jnp.where(parents, shrunk, gaussians.raw_scales),
    )

    def place(values, new):
        return values.at[target].set(new[order], mode="drop")

    gaussians = jax.tree.map(place, kept, child)
    fresh = jnp.zeros(capacity, bool).at[target].set(True, mode="drop")

    def clear(m):
        return jnp.where(fresh.reshape(-1, *[1] * (m.ndim - 1)), 0.0, m)

    moments = optax.ScaleByAdamState(
        moments.count, jax.tree.map(clear, moments.mu), jax.tree.map(clear, moments.nu)
    )
    report = {"added": num, "pruned": prune.sum(), "waiting": candidates.sum() - num}
    return Slots(gaussians, moments, alive | fresh, init_stats(capacity)), report


def first_slots(population: Population, region: str) -> int:
    """Slots of a region at the start of a run."""
    factor = AT_FIRST_ON_GPU[region] if native.on_gpu() else 1
    return _within(population, population.capacity, factor)


def more_slots(population: Population, slots: int) -> int:
    """Slots for a region whose `slots` do not suffice; as many as now where it has its limit."""
    return _within(population, slots, 4 if native.on_gpu() else 2)


def _within(population, slots, factor):
    """`factor`, a power of two, times `slots`, or less so as to keep within their limit."""
    limit = population.max_capacity or 0
    while factor > 1 and factor * slots > limit:
        factor //= 2
    return factor * slots


def grow(tree: Any, alive: Array, capacity: int) -> tuple[Any, Array]:
    """Pads a Gaussians-shaped tree and its mask to `capacity` slots; new slots repeat the last."""
    extra = capacity - alive.shape[0]

    def pad(x):
        return jnp.concatenate([x, jnp.repeat(x[-1:], extra, 0)]) if x.ndim else x

    return jax.tree.map(pad, tree), jnp.concatenate([alive, jnp.zeros(extra, bool)])
