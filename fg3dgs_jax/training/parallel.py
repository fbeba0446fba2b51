"""Data parallelism over frames, with `jax.pmap`; the only file that knows of several devices.

Every device holds the whole state and draws frames of its own; gradients and statistics are
averaged over the axis. One device is the same program with an axis of length one.
"""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "frames"


def pmap(function, **options):
    """`jax.pmap` over the leading device dimension, the axis named `AXIS`."""
    return jax.pmap(function, axis_name=AXIS, **options)


def replicate(tree):
    """A copy for every local device, along a new leading dimension, placed as `pmap` returns it.

    (Placed otherwise, the second call of a pmapped function would compile it again, and every call
    would move the arrays.)
    """
    devices = jax.local_devices()
    sharding = NamedSharding(Mesh(devices, (AXIS,)), PartitionSpec(AXIS))

    def copy(x):
        return jax.device_put(np.broadcast_to(x, (len(devices), *np.shape(x))), sharding)

    return jax.tree.map(copy, tree)


def first(tree):
    """The first device's copy."""
    return jax.tree.map(lambda x: x[0], tree)


def device_key(key):
    """A key of its own for each device."""
    return jax.random.fold_in(key, jax.lax.axis_index(AXIS))


def mean(tree):
    return jax.lax.pmean(tree, AXIS)


def gather(tree):
    """Every device's values, along a new leading dimension."""
    return jax.lax.all_gather(tree, AXIS)


def total(tree):
    return jax.lax.psum(tree, AXIS)
