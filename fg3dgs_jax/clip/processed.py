"""A processed folder, opened. Its files are described in `clip/format.py`."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence

import cv2
import numpy as np

from fg3dgs_jax.clip import decoded, streams
from fg3dgs_jax.clip.format import (
    ARRAYS,
    SCHEMA,
    DatasetError,
    longest_run,
    own_frames,
    splits,
)
from fg3dgs_jax.clip.landmarks import (
    FACE_OVAL,
    LEFT_EYE,
    LIP_MIDDLES,
    OUTER_LIPS,
    RIGHT_EYE,
    boxes_around,
)
from fg3dgs_jax.clip.layers import over
from fg3dgs_jax.system import arrays

AGAIN = "run preprocess again, which makes what is damaged anew, or copy the folder again"


@dataclasses.dataclass(frozen=True)
class Clip:
    """A processed folder, opened. Pictures are decoded, or mapped from a file, as they are read."""

    path: pathlib.Path
    meta: dict
    frames: decoded.Pictures  # uint8 [T, H, W, 3]
    labels: decoded.Pictures  # uint8 [T, H, W]
    background: np.ndarray  # uint8 [H, W, 3]
    torso: decoded.Pictures  # uint8 [T, H, W, 4], straight alpha
    world_to_camera: np.ndarray  # float32 [T, 4, 4]
    valid: np.ndarray  # bool [T]: False where the pose was interpolated
    intrinsics: tuple[float, float, float, float]  # fx, fy, cx, cy in px of these frames
    landmarks: np.ndarray  # float32 [T, 478, 2] px of these frames
    landmarks_valid: np.ndarray  # bool [T]
    expression: np.ndarray  # float32 [T, E]
    expression_names: tuple[str, ...]

    @property
    def num_frames(self) -> int:
        """T."""
        return self.frames.shape[0]

    @property
    def height(self) -> int:
        """H, px."""
        return self.frames.shape[1]

    @property
    def width(self) -> int:
        """W, px."""
        return self.frames.shape[2]

    @property
    def own(self) -> np.ndarray:
        """Bool [T]: which frames show the person in the scene of the clip, see `clip/format.py`."""
        return own_frames(self.num_frames, self.meta.get("left_out", ()))

    def split(self, name: str) -> np.ndarray:
        """Frame numbers of "train" (see `format.train_frames`), "test" (the rest) or "all".

        Frames that are not the person's own (`own`) are in none of them.
        """
        frames = splits(self.own)
        if name not in frames:
            raise DatasetError(f"split is {name!r}; expected one of {sorted(frames)}")
        return frames[name]

    def shot(self, name: str) -> np.ndarray:
        """The longest unbroken run of frames in a split: what is played, or measured over time."""
        return longest_run(self.split(name))

    def audio_features(self, extractor: str) -> np.ndarray:
        """float32 [T, A, D] of one extractor; an unknown one is refused, naming those there."""
        path = self.path / f"audio_{extractor}.npy"
        if not path.exists():
            extractors = sorted(
                p.stem.removeprefix("audio_") for p in self.path.glob("audio_*.npy")
            )
            raise DatasetError(
                f"{self.path} has no features {extractor!r}; it has {extractors or 'none'}. "
                "Choose one of them with --config.data.audio_extractor=NAME or run preprocess "
                "again."
            )
        features = arrays.read_npy(path, "run preprocess again with --features, or copy it again")
        if features.ndim != 3 or len(features) != self.num_frames:
            raise DatasetError(
                f"{path} has shape {features.shape}; expected [{self.num_frames}, A, D]"
            )
        return features

    def expression_channels(self, names: Sequence[str]) -> np.ndarray:
        """float32 [T, len(names)], the named columns in that order."""
        missing = [n for n in names if n not in self.expression_names]
        if missing:
            raise DatasetError(
                f"{self.path} has no expression channels {missing}; it has "
                f"{list(self.expression_names)}"
            )
        return self.expression[:, [self.expression_names.index(n) for n in names]]

    def lips_boxes(self, margin: float = 0.25) -> np.ndarray:
        """Boxes around the outer lips, each side widened by `margin` of the size.

        Returns:
          int32 [T, 4] (row0, row1, col0, col1).
        """
        return boxes_around(self.landmarks[:, OUTER_LIPS], self.height, self.width, margin)

    def eyes_boxes(self, margin: float = 0.35) -> np.ndarray:
        """int32 [T, 2, 4], the person's right eye (image left) first."""
        eyes = [
            boxes_around(self.landmarks[:, i], self.height, self.width, margin)
            for i in (RIGHT_EYE, LEFT_EYE)
        ]
        return np.stack(eyes, 1)

    def face_boxes(self, margin: float = 0.0) -> np.ndarray:
        """int32 [T, 4] around the face oval."""
        return boxes_around(self.landmarks[:, FACE_OVAL], self.height, self.width, margin)

    def mouth_openings(self) -> np.ndarray:
        """float32 [T], height of the opening between the inner lips' middles in px."""
        upper, lower = LIP_MIDDLES
        return np.linalg.norm(self.landmarks[:, lower] - self.landmarks[:, upper], axis=-1)

    def kept(self, room: int) -> "Clip":
        """The same clip, whose pictures stay in memory once they were read, up to `room` bytes."""
        memory = decoded.Memory(room)
        pictures = {name: memory.keeping(getattr(self, name)) for name in ARRAYS}
        return dataclasses.replace(self, **pictures)

    def resized(self, side: int) -> "Clip":
        """The same clip whose pictures have a longer side of `side` px."""
        scale = side / max(self.width, self.height)
        size = (round(self.width * scale), round(self.height * scale))
        ratio = np.array([size[0] / self.width, size[1] / self.height])
        fx, fy, cx, cy = np.multiply(self.intrinsics, np.tile(ratio, 2))
        pictures = {
            name: decoded.resized(
                getattr(self, name),
                size,
                cv2.INTER_NEAREST if name == "labels" else cv2.INTER_AREA,
            )
            for name in ARRAYS
        }
        background = cv2.resize(self.background, size, interpolation=cv2.INTER_AREA)
        return dataclasses.replace(
            self,
            background=background,
            intrinsics=(float(fx), float(fy), float(cx), float(cy)),
            landmarks=self.landmarks * ratio.astype(np.float32),
            **pictures,
        )

    def backgrounds(self) -> np.ndarray:
        """uint8 [T, H, W, 3], the torso layer over the plate: B of eq. (14)."""
        out = np.empty((*self.torso.shape[:3], 3), np.uint8)
        for k, layer in enumerate(self.torso):
            out[k] = over(layer, self.background)
        return out


def load_clip(path: os.PathLike | str, max_side: int = 0) -> Clip:
    """Opens a processed folder.

    Args:
      path: the folder.
      max_side: px. Frames, labels, torso, landmarks and intrinsics shrink together until the longer
        side is at most that. 0 leaves them as they are.

    Raises:
      DatasetError: no such folder, an unfinished one, another schema, or arrays that do not fit
        together.
    """
    path = pathlib.Path(path)
    if not (path / "meta.json").exists():
        unfinished = "is an unfinished processed folder (no meta.json)"
        raise DatasetError(
            f"{path} {unfinished if path.is_dir() else 'does not exist'}; make it with: "
            f"python -m fg3dgs_jax.preprocess --video VIDEO --out {path}"
        )
    try:
        meta = json.loads((path / "meta.json").read_text())
        if meta["schema"] != SCHEMA:
            raise DatasetError(
                f"{path} has schema {meta['schema']}; this version reads {SCHEMA}: run preprocess "
                "again"
            )
        frames, height, width = meta["T"], meta["height"], meta["width"]
        intrinsics = np.array([meta["intrinsics"][k] for k in ("fx", "fy", "cx", "cy")])
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise arrays.damaged(path / "meta.json", error, AGAIN) from None
    big = open_pictures(path)
    for name, array in big.items():
        if array.shape[:3] != (frames, height, width):
            raise DatasetError(
                f"the {name} of {path} have shape {array.shape}; meta.json says "
                f"[{frames}, {height}, {width}]"
            )
    background = cv2.imread(str(path / "background.png"))
    if background is None:
        raise DatasetError(f"{path}/background.png is missing or damaged; {AGAIN}")
    background = background[..., ::-1]
    camera, landmarks, expression = (
        arrays.read_npz(path / f"{n}.npz", AGAIN) for n in ("camera", "landmarks", "expression")
    )
    fx, fy, cx, cy = intrinsics
    clip = Clip(
        path=path,
        meta=meta,
        background=np.ascontiguousarray(background),
        world_to_camera=camera["world_to_camera"].astype(np.float32),
        valid=camera["valid"],
        intrinsics=(float(fx), float(fy), float(cx), float(cy)),
        landmarks=landmarks["pixels"].astype(np.float32),
        landmarks_valid=landmarks["valid"],
        expression=expression["e"].astype(np.float32),
        expression_names=tuple(map(str, expression["names"])),
        **big,
    )
    return clip.resized(max_side) if 0 < max_side < max(width, height) else clip


def open_pictures(path: pathlib.Path) -> dict[str, decoded.Pictures]:
    """Frames, labels and torso of a folder by these names: its streams, or else its arrays.

    Raises:
      DatasetError: neither is whole.
    """
    if not streams.whole(path) and any((path / f"{name}.npy").exists() for name in ARRAYS):
        return {name: arrays.read_npy(path / f"{name}.npy", AGAIN, mapped=True) for name in ARRAYS}
    try:
        return dict(decoded.arrays(path))
    except streams.StreamError as error:
        raise DatasetError(str(error)) from None
