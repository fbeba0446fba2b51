"""Where a network's variables come from: the published checkpoint, or our own converted file.

A converted file is an npz of the Flax arrays under their paths joined by "/", which loads without
reading a pickle and without knowing the publisher's names.
"""

import hashlib
import os
import pathlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from flax import traverse_util

from fg3dgs_jax.media.whole_files import whole
from fg3dgs_jax.weights.formats import checkpoints
from fg3dgs_jax.weights.formats.pickles import CheckpointError


def load(
    path: os.PathLike | str,
    convert: Callable | None,
    root: str | Sequence[str] | None = None,
    inert: Sequence[str] = (),
) -> dict:
    """Variables of one network.

    Args:
      path: of an `.npz` written by `save`, or of the published file.
      convert: the network's own pure function, dict of arrays -> variables; None where only an
        `.npz` will do.
      root: see `checkpoints.load`.
      inert: see `checkpoints.load`.

    Raises:
      ValueError: the file is damaged, tries to execute something, or is not of this network.
    """
    path = pathlib.Path(path)
    if path.suffix == ".npz":
        return unflatten(read_npz(path))
    if convert is None:
        raise CheckpointError(f"{path} is a published file; expected NAME.npz, written by `save`")
    return convert(checkpoints.load(path, root, inert))


def read_npz(path: os.PathLike | str) -> dict[str, np.ndarray]:
    """An npz's arrays under their own keys; one that needs a pickle, or is none, is refused."""
    try:
        # Opened here: where NumPy refuses a file that it has opened, it leaves it open.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (OSError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path} is no npz of arrays ({error}); make it again with: "
            "python -m fg3dgs_jax.weights convert"
        ) from None


def save(path: os.PathLike | str, variables: dict) -> None:
    """Writes `variables`, nested dicts of arrays, so that `load` gives them back; all or nothing.

    The path ends in `.npz`: `load` tells the two kinds by it.
    """
    save_arrays(path, flatten(variables))


def save_arrays(path: os.PathLike | str, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an npz of `arrays` under their keys, in their order; all or nothing."""
    path = pathlib.Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"a converted file is called {path.name!r}; expected NAME.npz")
    with whole(path) as part:
        entries: dict[str, Any] = dict(arrays)
        np.savez(part, **entries)


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """sha256 of arrays under their keys, whatever file they stand in; hex."""
    total = hashlib.sha256()
    for key in sorted(arrays):
        array = np.ascontiguousarray(arrays[key])
        total.update(f"{key} {array.dtype.str} {np.shape(arrays[key])}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def flatten(tree: dict) -> dict[str, np.ndarray]:
    """Nested dicts of arrays -> one dict, keys joined by "/"."""
    flat = traverse_util.flatten_dict(tree, sep="/")
    return {key: np.asarray(value) for key, value in flat.items()}


def unflatten(flat: Mapping[str, np.ndarray]) -> dict:
    """The inverse of `flatten`."""
    return traverse_util.unflatten_dict(flat, sep="/")
