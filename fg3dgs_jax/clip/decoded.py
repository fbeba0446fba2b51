"""Pictures that are decoded as they are asked for, in place of arrays that would fill a disk.

A `Decoded` is used like a memory map: `len`, `shape`, a number for one picture, a slice for a part
that still lies on the disk, an index array for pictures in memory, a loop for one after the other.
"""

import os
import pathlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from fg3dgs_jax.clip import streams


class Decoded:
    """uint8 pictures [T, H, W] or [T, H, W, C] that are made one by one."""

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        make: Callable[[int], np.ndarray],
        shape: Sequence[int],
        numbers: range | None = None,
    ) -> None:
        """Takes what makes a picture, the shape of all, and which of `make`'s numbers they are."""
        self._make, self.shape = make, tuple(map(int, shape))
        self._numbers = range(self.shape[0]) if numbers is None else numbers

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all pictures, were they in memory."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        """T."""
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yields one picture after the other."""
        return map(self._make, self._numbers)

    def __getitem__(self, index: Any) -> Any:
        """Returns a picture (a number), a part (a slice) or pictures in memory (an array)."""
        if isinstance(index, slice):
            numbers = self._numbers[index]
            return Decoded(self._make, (len(numbers), *self.shape[1:]), numbers)
        if isinstance(index, tuple):
            raise TypeError("decoded pictures take one index; np.asarray(pictures) takes more")
        chosen = np.asarray(index)
        if chosen.dtype == bool:
            chosen = np.flatnonzero(chosen)
        if chosen.ndim == 0:
            return self._make(self._numbers[int(chosen)])
        out = np.empty((*chosen.shape, *self.shape[1:]), np.uint8)
        for place, number in np.ndenumerate(chosen):
            out[place] = self._make(self._numbers[int(number)])
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All pictures in memory."""
        if copy is False:
            raise ValueError("decoded pictures are always a copy")
        pictures = self[np.arange(len(self))]
        return pictures if dtype is None else pictures.astype(dtype)


Pictures = np.ndarray | Decoded


class Memory:
    """Room for pictures that were decoded once, shared by several `Decoded`."""

    def __init__(self, room: int) -> None:
        """Takes the bytes that all pictures may fill; what comes later is not kept."""
        self._left, self._lock = room, threading.Lock()

    def keeping(self, pictures: Pictures) -> Decoded:
        """The same pictures, of which those that were made stay in memory while there is room."""
        kept: dict[int, np.ndarray] = {}
        size = pictures.nbytes // max(len(pictures), 1)

        def make(number):
            picture = kept.get(number)
            if picture is None:
                picture = pictures[number]
                with self._lock:
                    if self._left >= size and number not in kept:
                        self._left -= size
                        kept[number] = picture
            return picture

        return Decoded(make, pictures.shape)


def resized(pictures: Pictures, size: tuple[int, int], interpolation: int) -> Decoded:
    """Pictures [T, H, W, ...] at (width, height) px, each resized when it is asked for."""

    def make(number):
        picture = np.ascontiguousarray(pictures[number])
        return cv2.resize(picture, size, interpolation=interpolation)

    return Decoded(make, (len(pictures), size[1], size[0], *pictures.shape[3:]))


def frames(path: os.PathLike | str) -> Decoded:
    """uint8 [T, H, W, 3] of a stream of frames.

    Raises:
      StreamError: it is missing or damaged; as for all that is read of streams.
    """
    source = streams.Source(path)
    return Decoded(
        lambda number: streams.frame_of(source.planes(number)), (len(source), *source.size, 3)
    )


def grey(paths: Sequence[os.PathLike | str], length: int) -> Decoded:
    """uint8 [T, H, W] of a stream of grey levels in several files of `length` pictures each."""
    sources = [streams.Source(path) for path in paths]
    count = sum(map(len, sources))

    def make(number):
        return sources[number // length].planes(number % length)[0]

    return Decoded(make, (count, *sources[0].size))


def arrays(folder: os.PathLike | str) -> dict[str, Decoded]:
    """Frames, labels and torso of a processed folder by these names; uint8, see `format.py`."""
    sources = [streams.Source(pathlib.Path(folder, name)) for name in streams.STREAMS]
    pictures, labels, colours, alpha = sources
    shape = (len(labels), *labels.size)

    def torso(number):
        frame = streams.frame_of(pictures.planes(number))
        return streams.torso_of(frame, *(s.planes(number) for s in (labels, colours, alpha)))

    return {
        "frames": Decoded(
            lambda number: streams.frame_of(pictures.planes(number)),
            (len(pictures), *pictures.size, 3),
        ),
        "labels": Decoded(lambda number: streams.labels_of(labels.planes(number)), shape),
        "torso": Decoded(torso, (*shape, 4)),
    }
