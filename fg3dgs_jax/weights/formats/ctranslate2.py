"""CTranslate2's `model.bin` as NumPy arrays: plain records, read within the file's bounds."""

import mmap
import os
import pathlib
import struct

import numpy as np

from fg3dgs_jax.weights.formats.pickles import CheckpointError, line, shape_of

_VERSION = 6  # of the container
_DTYPES = ("<f4", "i1", "<i2", "<i4", "<f2")  # by number; bfloat16, the next, is not needed here
_MAX_NAMES = 100_000


def load(path: os.PathLike | str, prefix: str = "") -> dict[str, np.ndarray]:
    """Key -> read-only array of the file's own dtype, of the keys that begin with `prefix`.

    The container is a version, the model's name and revision, a count of records - name, rank,
    dimensions, number of a dtype, bytes, values - and a list of aliases, which is left aside.

    Raises:
      CheckpointError: the file is cut short or something else. One line.
      OSError: the file cannot be opened.
    """
    path = pathlib.Path(path)
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            return _arrays(_Reader(data), prefix)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
        except (ValueError, struct.error) as error:
            raise CheckpointError(f"{path}: is no whole CTranslate2 model ({error})") from None


class _Reader:
    """Takes little-endian numbers, texts and bytes from the front of a buffer."""

    def __init__(self, data):
        self._data, self._at = data, 0

    def number(self, code) -> int:
        (value,) = struct.unpack_from(f"<{code}", self._data, self._at)
        self._at += struct.calcsize(f"<{code}")
        return value

    def raw(self, count) -> bytes:
        if self._at + count > len(self._data):
            raise CheckpointError(f"has {len(self._data)} bytes; expected more: it is cut short")
        self._at += count
        return self._data[self._at - count : self._at]

    def text(self) -> str:
        return self.raw(self.number("H")).rstrip(b"\0").decode("ascii", "replace")


def _arrays(reader, prefix):
    if (version := reader.number("I")) != _VERSION:
        raise CheckpointError(f"has version {version}; expected CTranslate2's {_VERSION}")
    reader.text()  # the model's name
    reader.number("I")  # its revision
    arrays = {}
    if (count := reader.number("I")) > _MAX_NAMES:
        raise CheckpointError(f"has {count} arrays; expected <= {_MAX_NAMES}")
    for _ in range(count):
        key = reader.text()
        shape = shape_of([reader.number("I") for _ in range(reader.number("B"))])
        kind, num_bytes = reader.number("B"), reader.number("I")
        raw = reader.raw(num_bytes)
        if not key.startswith(prefix):
            continue
        if kind >= len(_DTYPES):
            raise CheckpointError(f"has {line(key)} of the unknown dtype {kind}")
        dtype = np.dtype(_DTYPES[kind])
        if int(np.prod(shape, dtype=np.int64)) * dtype.itemsize != num_bytes:
            raise CheckpointError(f"has {num_bytes} bytes for {line(key)}, {dtype} {list(shape)}")
        arrays[key] = np.frombuffer(raw, dtype).reshape(shape)
    if not arrays:
        raise CheckpointError(f"has no arrays under {prefix!r}")
    return arrays
