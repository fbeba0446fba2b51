"""Adam for all parameters in one custom call, on a GPU; `rates.update` is its definition.

XLA makes a kernel for each parameter there, a hundred in a step, and most of them take less time
than their launch. The custom call's blocks work on all of them, and it writes where it reads.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax import native
from fg3dgs_jax.types import Array


class Leaf(NamedTuple):
    """One parameter to move, all arrays of one shape, float32."""

    value: Array
    gradient: Array
    mean: Array  # Adam's first moment
    square: Array  # and its second
    rates: tuple[Array, Array]  # of the first numbers of a row, and of all others
    row: int  # numbers
    first: int  # of them, which have a rate of their own
    decays: tuple[float, float]  # of the two moments
    count: Array  # [] steps, this one included


def is_available() -> bool:
    """Whether `step` can run here: on a GPU whose library has it."""
    return native.resolve_backend() == "cuda" and native.has_targets("adam", "cuda")


def step(leaves: Sequence[Leaf], eps: float) -> list[tuple[Array, Array, Array]]:
    """(value, mean, square) of each leaf after one step of Adam."""
    columns = ("value", "gradient", "mean", "square")
    operands = [getattr(leaf, column) for column in columns for leaf in leaves]
    kept = {"value": 0, "mean": 1, "square": 2}  # what is written, where it was read
    count = len(leaves)
    results = [jax.ShapeDtypeStruct(getattr(x, k).shape, jnp.float32) for k in kept for x in leaves]
    alias = {
        1 + columns.index(name) * count + i: place * count + i
        for name, place in kept.items()
        for i in range(count)
    }
    call = jax.ffi.ffi_call(
        "fg3dgs_adam", results, vmap_method="sequential", input_output_aliases=alias
    )
    moved = call(
        _table(leaves),
        *operands,
        rows=np.array([leaf.row for leaf in leaves], np.int32),
        firsts=np.array([leaf.first for leaf in leaves], np.int32),
        eps=np.float32(eps),
    )
    return list(zip(*(moved[k * count :][:count] for k in range(3)), strict=True))


def _table(leaves: Sequence[Leaf]) -> Array:
    """[leaves, 8] numbers: two rates, decays, 1 - decays, and 1 - decay^t of both moments.

    Leaves share most of them: each is computed once and picked by its place.
    """
    rates, rate_of = _distinct([rate for leaf in leaves for rate in leaf.rates])
    counts, count_of = _distinct([leaf.count for leaf in leaves])
    decays = np.array([leaf.decays for leaf in leaves])  # [leaves, 2]
    columns = (
        rates[rate_of.reshape(-1, 2)],
        decays,
        1.0 - decays,
        1.0 - jnp.asarray(decays, jnp.float32) ** counts[count_of][:, None],
    )
    return jnp.concatenate([jnp.asarray(c, jnp.float32) for c in columns], 1)


def _distinct(scalars):
    """The different ones of some scalars as one array, and the place of each in it."""
    places = {id(x): x for x in scalars}
    order = {key: i for i, key in enumerate(places)}
    return jnp.stack(list(places.values())), np.array([order[id(x)] for x in scalars])
