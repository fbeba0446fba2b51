"""Reads files of arrays; one that is missing or damaged is one line with the way out."""

import json
import os
import pathlib
import struct
import tokenize
import zipfile
import zlib
from typing import Any

import numpy as np

# What NumPy, zipfile and zlib answer to bytes that are not what they should be.
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    tokenize.TokenError,
    SyntaxError,
    EOFError,
    KeyError,
    TypeError,
    ValueError,
    NotImplementedError,
)


class Damaged(ValueError):
    """A file that is not as it was written; one line with the way out."""


def read_npz(path: os.PathLike[str] | str, way_out: str) -> dict[str, np.ndarray]:
    """All arrays of an npz, whose checksums are compared.

    Args:
      path: of the file.
      way_out: what to do if it is damaged, e.g. "run preprocess again".

    Raises:
      Damaged: it is missing or damaged.
    """
    path = pathlib.Path(path)
    try:
        # Opened here: where NumPy refuses a file that it has opened, it leaves it open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise Damaged(f"{path} is missing; {way_out}") from None
    except (*_UNREADABLE, AttributeError) as error:
        raise damaged(path, error, way_out) from None


def read_npy(path: os.PathLike[str] | str, way_out: str, mapped: bool = False) -> np.ndarray:
    """One array of an npy file.

    Args:
      path: of the file.
      way_out: what to do if it is damaged.
      mapped: it stays in the file, which is mapped into memory.

    Raises:
      Damaged: it is missing, or is shorter than its header says, or no array at all.
    """
    path = pathlib.Path(path)
    try:
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except FileNotFoundError:
        raise Damaged(f"{path} is missing; {way_out}") from None
    except _UNREADABLE as error:
        raise damaged(path, error, way_out) from None


def is_whole(path: os.PathLike[str] | str) -> bool:
    """Whether a file is there and can be read, as far as its suffix says how.

    The checksums of an npz are compared, of an npy only its length.
    """
    path = pathlib.Path(path)
    try:
        if path.suffix == ".npz":
            read_npz(path, "")
        elif path.suffix == ".npy":
            read_npy(path, "", mapped=True)
        elif path.suffix == ".json":
            json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return path.exists()


def damaged(path: os.PathLike[str] | str, reason: Any, way_out: str) -> Damaged:
    """The error of a file that cannot be read."""
    text = " ".join(str(reason).split()) or type(reason).__name__
    return Damaged(f"{os.fspath(path)} is damaged ({text}); {way_out}")
