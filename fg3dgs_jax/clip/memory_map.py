"""Memory maps that are larger than the memory: what has been seen is given back."""

import mmap
from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")
ROWS_AT_ONCE = 64  # of a memory map, seen or filled before their memory is given back


def releasing(items: Iterable[Item], *arrays: np.ndarray) -> Iterator[Item]:
    """Yields the items; every now and then `arrays`, which their work maps, leave the memory."""
    for i, item in enumerate(items):
        yield item
        if i % ROWS_AT_ONCE == ROWS_AT_ONCE - 1:
            for array in arrays:
                release(array)
    for array in arrays:
        release(array)


def release(array: np.ndarray) -> None:
    """Gives back the memory that a memory map holds; its content stays in the file.

    What was written goes to the system's cache of the file, which is written out when it suits.
    """
    pages = getattr(array, "_mmap", None)
    if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)
