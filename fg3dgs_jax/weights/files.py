"""Digests of files, and whether a file is the one that a row of the registry means."""

import functools
import hashlib
import os
import pathlib

from fg3dgs_jax.weights import variables
from fg3dgs_jax.weights.formats.pickles import CheckpointError
from fg3dgs_jax.weights.registry import WeightFile


def digest(path: os.PathLike | str, kind: str = "sha256") -> str:
    """Hex digest of a file's bytes; read again only when the file has changed."""
    path = pathlib.Path(path)
    stat = path.stat()
    return _digest_of_version(str(path.absolute()), stat.st_mtime_ns, stat.st_size, kind)


@functools.cache
def _digest_of_version(path, mtime_ns, size, kind):
    del mtime_ns, size  # keys of the cache
    with open(path, "rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def forget() -> None:
    """Reads the files anew when they are asked for next."""
    _digest_of_version.cache_clear()


def mismatch(row: WeightFile, path: os.PathLike | str) -> str:
    """Why the file is not the row's, in a few words; "" if it is, or if nothing is registered."""
    path = pathlib.Path(path)
    if row.arrays_sha256 and digest(path) != row.sha256:
        return _mismatch_of_arrays(row, path)
    size = path.stat().st_size
    if row.size and size != row.size:
        return f"it has {size} bytes, registered are {row.size}"
    for kind, expected in (("sha256", row.sha256), ("sha1", row.sha1)):
        if expected and not (actual := digest(path, kind)).startswith(expected):
            return f"it has {kind} {actual[:12]}..., registered is {expected[:12]}..."
    return ""


def _mismatch_of_arrays(row, path):
    """The same arrays may stand in another zip: NumPy and Python write headers as they like."""
    try:
        actual = variables.digest(variables.read_npz(path))
    except CheckpointError:
        return f"it has sha256 {digest(path)[:12]}..., registered is {row.sha256[:12]}..."
    if actual == row.arrays_sha256:
        return ""
    return f"its arrays have sha256 {actual[:12]}..., registered is {row.arrays_sha256[:12]}..."
