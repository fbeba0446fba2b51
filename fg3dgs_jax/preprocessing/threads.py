"""Frames worked on by several threads: OpenCV leaves Python's lock while it computes."""

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

WORKERS = min(4, os.cpu_count() or 1)


def map_ahead(function: Callable[..., T], *inputs: Iterable, workers: int = WORKERS) -> Iterator[T]:
    """Yields function(*row) for each row of the zipped inputs, in order.

    At most 2 * `workers` rows are read ahead of the one that is yielded, so that memory stays
    bounded. Inputs are read by the calling thread alone and may be generators.
    """
    with ThreadPoolExecutor(workers) as pool:
        waiting = collections.deque()
        try:
            for row in zip(*inputs, strict=True):
                waiting.append(pool.submit(function, *row))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()
