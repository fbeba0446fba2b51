"""A folder in the layout of AD-NeRF, ER-NeRF and TalkingGaussian, frame by frame.

`layout.open_source` makes a `Source`; what it reads is in the table there.
"""

import dataclasses
import os
import pathlib

import cv2
import numpy as np


class SourceError(ValueError):
    """A folder that cannot be imported; one line."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A folder of that layout in which nothing needed is missing."""

    path: pathlib.Path
    num_frames: int
    height: int
    width: int
    pictures: str  # the folder of the frames
    poses: dict[int, np.ndarray]  # frame -> camera to world [4, 4], OpenGL axes, their unit
    intrinsics: tuple[float, float, float]  # focal length, cx, cy px
    splits: dict[str, tuple[int, ...]]  # "train", "val": frames
    sound: pathlib.Path
    features: dict[str, pathlib.Path]  # our extractor -> file
    action_units: pathlib.Path | None
    teeth: frozenset[int]  # frames with a mask
    defects: tuple[str, ...]
    digest: str  # of names, sizes and times of all that is read

    def frame(self, i: int) -> np.ndarray:
        """uint8 [H, W, 3] RGB."""
        return self._picture(numbered(self.path / self.pictures, i), 3)[..., ::-1]

    def parsing(self, i: int) -> np.ndarray:
        """uint8 [H, W, 3] RGB, colours that stand for labels."""
        return self._picture(self.path / "parsing" / f"{i}.png", 3)[..., ::-1]

    def torso(self, i: int) -> np.ndarray:
        """uint8 [H, W, 4], straight alpha; clear pixels are black."""
        rgba = self._picture(self.path / "torso_imgs" / f"{i}.png", 4)[..., [2, 1, 0, 3]]
        return rgba * (rgba[..., 3:] > 0)

    def plate(self) -> np.ndarray:
        """uint8 [H, W, 3] RGB."""
        return self._picture(self.path / "bc.jpg", 3)[..., ::-1]

    def teeth_mask(self, i: int) -> np.ndarray | None:
        """The mask bool [H, W], or None where there is none."""
        if i not in self.teeth:
            return None
        path = self.path / "teeth_mask" / f"{i}.npy"
        mask = np.load(path)
        if mask.shape != (self.height, self.width):
            raise SourceError(f"{path} has shape {mask.shape}; expected {self._size}")
        return mask.astype(bool)

    def feature_rows(self, name: str) -> np.ndarray:
        """float32 [T, A, D]; rows beyond the last frame fall away, lacking ones repeat the last."""
        rows = feature(self.features[name])[: self.num_frames]
        more = self.num_frames - len(rows)
        return np.pad(rows, ((0, more), (0, 0), (0, 0)), mode="edge").astype(np.float32)

    @property
    def _size(self):
        return f"({self.height}, {self.width}) as the first frame"

    def _picture(self, path, channels):
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED if channels == 4 else cv2.IMREAD_COLOR)
        if image is None:
            raise SourceError(f"{path} cannot be read as a picture; expected one: make it again")
        if image.shape[:2] != (self.height, self.width):
            raise SourceError(f"{path} has size {image.shape[:2]}; expected {self._size}")
        if image.ndim != 3 or image.shape[2] != channels or image.dtype != np.uint8:
            raise SourceError(
                f"{path} is {image.dtype} {image.shape}; expected uint8 with {channels} channels"
            )
        return image


def feature(path: os.PathLike | str) -> np.ndarray:
    """[T, A, D], memory-mapped: the windows of a file of audio features."""
    try:
        rows = np.load(path, mmap_mode="r")
    except (ValueError, EOFError, OSError) as error:
        raise SourceError(f"{path} cannot be read ({error}); expected an array") from None
    if rows.ndim == 2 and rows.shape[1:] == (1024,):  # HuBERT's 50 rows a second
        rows = rows[: len(rows) // 2 * 2].reshape(-1, 2, 1024)
    if rows.ndim != 3 or not len(rows):
        raise SourceError(f"{path} has shape {rows.shape}; expected [T, A, D]")
    return rows


def numbered(folder: pathlib.Path, i: int) -> pathlib.Path:
    """Path of picture `i`."""
    path = folder / f"{i}.jpg"
    return path if path.exists() else folder / f"{i}.png"
