"""Data parallelism over frames, with `jax.pmap`; the only file that knows of several devices.

Every device holds the whole state and draws frames of its own; gradients and statistics are
averaged over the axis. One device is the same program with an axis of length one. Devices may
belong to several processes: each then feeds its own, and the first one writes what a run leaves.
What is random is numbered by the frame within the step, never by the device, so how many devices
share the work changes nothing but rounding.
"""

import os
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fg3dgs_jax.types import Array

AXIS = "frames"

EMULATED = re.compile(r"--xla_force_host_platform_device_count=(\d+)")


def give_threads() -> None:
    """Threads enough for the CPU devices that XLA_FLAGS emulates; before anything touches one.

    XLA's pool has a thread a core, and a device that waits for another in a collective holds some
    of them: without more, two devices on two cores hang.
    """
    if found := EMULATED.search(os.environ.get("XLA_FLAGS", "")):
        os.environ.setdefault("NPROC", str(max(os.cpu_count() or 1, 8 * int(found[1]))))


def connect(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins the processes of one run; before anything else touches a device.

    Args:
      coordinator: HOST:PORT of process 0, else $JAX_COORDINATOR_ADDRESS.
      num_processes: how many take part, else $JAX_NUM_PROCESSES. JAX asks the cluster (Slurm, Open
        MPI, Kubernetes, TPU pods) for what is not given.
      process_id: number of this one, else $JAX_PROCESS_ID.

    Raises:
      ValueError: one line, if it cannot be found out who takes part, or someone does not come.
    """
    coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
    given = {"JAX_NUM_PROCESSES": num_processes, "JAX_PROCESS_ID": process_id}
    try:
        count, number = (
            int(os.environ[name]) if value is None and name in os.environ else value
            for name, value in given.items()
        )
        jax.distributed.initialize(coordinator, count, number)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"the processes of the run do not find each other ({reason}); expected --coordinator "
            "HOST:PORT, --num_processes N and --process_id 0..N-1, or JAX_COORDINATOR_ADDRESS, "
            "JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from error


def disconnect() -> None:
    """Leaves the run, after the others have come to its end too; nothing in a run by itself."""
    if jax.process_count() > 1:
        jax.distributed.shutdown()


def writes() -> bool:
    """Whether this process is the one that writes logs, pictures and the avatar."""
    return jax.process_index() == 0


def any_process(value: bool) -> bool:
    """Whether `value` is True in any process; all of them have to ask."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.process_allgather(np.array(value)).any())


def pmap(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`jax.pmap` over the leading device dimension, the axis named `AXIS`."""
    return jax.pmap(function, axis_name=AXIS, **options)


def _sharding():
    return NamedSharding(Mesh(jax.local_devices(), (AXIS,)), PartitionSpec(AXIS))


def replicate(tree: Any) -> Any:
    """A copy for every local device, along a new leading dimension, placed as `pmap` returns it.

    (Placed otherwise, the second call of a pmapped function would compile it again, and every call
    would move the arrays.)
    """
    count, sharding = jax.local_device_count(), _sharding()

    def copy(x):
        return jax.device_put(np.broadcast_to(x, (count, *np.shape(x))), sharding)

    return jax.tree.map(copy, tree)


def deal(tree: Any) -> Any:
    """Host arrays with a leading dimension of local devices, each part on its device."""
    return jax.device_put(tree, _sharding())


def ours(global_frames: Array | np.ndarray) -> np.ndarray:
    """This process's part [L, K, B, ...] of numbers [K, G, ...] for K steps of G frames.

    L are the local devices, B the frames on each.
    """
    frames = np.asarray(global_frames)
    steps, _, *rest = frames.shape
    frames = frames.reshape(steps, jax.process_count(), jax.local_device_count(), -1, *rest)
    return np.moveaxis(frames[:, jax.process_index()], 1, 0)


def host_device() -> Any:
    """A CPU, whatever else computes, or the default device where JAX was told to use no CPU."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return jax.local_devices()[0]


def first(tree: Any) -> Any:
    """The first device's copy."""
    return jax.tree.map(lambda x: x[0], tree)


def read(tree: Any) -> Any:
    """The first local device's copy in host memory, by one transfer and without a program."""
    copies = jax.device_get(jax.tree.map(lambda x: x.addressable_data(0), tree))
    return jax.tree.map(lambda x: x[0], copies)


def frame_keys(key: Array, count: int) -> Array:
    """[count] keys for a device's frames, each of the frame's number within the whole step."""
    numbers = jax.lax.axis_index(AXIS) * count + jnp.arange(count)
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)


def mean(tree: Any) -> Any:
    """The mean over every device."""
    return jax.lax.pmean(tree, AXIS)


def gather(tree: Any) -> Any:
    """Every device's values, along a new leading dimension."""
    return jax.lax.all_gather(tree, AXIS)


def total(tree: Any) -> Any:
    """The sum over every device."""
    return jax.lax.psum(tree, AXIS)
