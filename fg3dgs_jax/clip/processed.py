"""The processed folder (schema 1): what `preprocess` and `synthetic/subject.py` write and
everything else reads.

| file | content |
|---|---|
| `meta.json` | schema, T, width, height, fps, intrinsics, split, source, weights, consent... |
| `frames.npy` | uint8 [T, H, W, 3] RGB |
| `labels.npy` | uint8 [T, H, W], `LABELS` |
| `background.png` | RGB plate [H, W, 3] |
| `torso.npy` | torso and neck layer, uint8 straight-alpha RGBA [T, H, W, 4] |
| `camera.npz` | world_to_camera [T, 4, 4] float32, valid [T] bool |
| `landmarks.npz` | pixels [T, 478, 2] float32 (x, y), valid [T] bool |
| `expression.npz` | e [T, E] float32, names [E] |
| `audio.wav` | 16 kHz mono int16; sample 0 is the start of frame 0 |
| `audio_<extractor>.npy` | float32 [T, A, D], row i belongs to frame i |

`meta.json` is written last: a folder without it is unfinished.
"""

import dataclasses
import json
import pathlib

import cv2
import numpy as np

SCHEMA = 1
FPS = 25
SAMPLE_RATE = 16_000

# The 19 CelebAMask-HQ classes in their order, and teeth as class 19.
LABELS = {
    "background": 0,
    "skin": 1,
    "left_brow": 2,
    "right_brow": 3,
    "left_eye": 4,
    "right_eye": 5,
    "glasses": 6,
    "left_ear": 7,
    "right_ear": 8,
    "earring": 9,
    "nose": 10,
    "mouth": 11,  # the interior, lips excluded
    "upper_lip": 12,
    "lower_lip": 13,
    "neck": 14,
    "necklace": 15,
    "cloth": 16,
    "hair": 17,
    "hat": 18,
    "teeth": 19,
}
# Everything but neck, clothes and background.
HEAD_LABELS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 17, 18, 19)
EYE_LABELS = (4, 5)
MOUTH_LABELS = (11, 19)
LIP_LABELS = (12, 13)

# MediaPipe face-mesh indices (478 points) of the outlines that boxes and openings are made of.
OUTER_LIPS = (
    61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146,
)  # fmt: skip
INNER_LIPS = (
    78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95,
)  # fmt: skip
# The person's right: image left.
RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
CHIN = (148, 152, 377)
GUIDES = OUTER_LIPS + INNER_LIPS + RIGHT_EYE + LEFT_EYE + CHIN  # points that speech and blinks move

ARRAYS = ("frames", "labels", "torso")


class DatasetError(ValueError):
    """A processed folder that cannot be used.

    The message says what was found, what was expected and what to do.
    """


@dataclasses.dataclass(frozen=True)
class Clip:
    """A processed folder, opened. Big arrays are memory-mapped unless `max_side` made copies."""

    path: pathlib.Path
    meta: dict
    frames: np.ndarray  # uint8 [T, H, W, 3]
    labels: np.ndarray  # uint8 [T, H, W]
    background: np.ndarray  # uint8 [H, W, 3]
    torso: np.ndarray  # uint8 [T, H, W, 4], straight alpha
    world_to_camera: np.ndarray  # float32 [T, 4, 4]
    valid: np.ndarray  # bool [T]: False where the pose was interpolated
    intrinsics: tuple[float, float, float, float]  # fx, fy, cx, cy in px of these frames
    landmarks: np.ndarray  # float32 [T, 478, 2] px of these frames
    landmarks_valid: np.ndarray  # bool [T]
    expression: np.ndarray  # float32 [T, E]
    expression_names: tuple[str, ...]

    @property
    def num_frames(self) -> int:
        return self.frames.shape[0]

    @property
    def height(self) -> int:
        return self.frames.shape[1]

    @property
    def width(self) -> int:
        return self.frames.shape[2]

    def split(self, name: str) -> np.ndarray:
        """Frame numbers of "train" (the first int(T * 10 / 11)), "test" (the rest) or "all"."""
        cut = int(self.num_frames * 10 / 11)
        ranges = {"train": (0, cut), "test": (cut, self.num_frames), "all": (0, self.num_frames)}
        if name not in ranges:
            raise DatasetError(f"split is {name!r}; expected one of {sorted(ranges)}")
        return np.arange(*ranges[name])

    def audio_features(self, extractor: str) -> np.ndarray:
        """float32 [T, A, D] of one extractor; an unknown one is refused, naming those there."""
        path = self.path / f"audio_{extractor}.npy"
        if not path.exists():
            found = sorted(p.stem.removeprefix("audio_") for p in self.path.glob("audio_*.npy"))
            raise DatasetError(
                f"{self.path} has no features {extractor!r}; it has {found or 'none'}. "
                "Choose one of them with --config.data.audio_extractor=NAME or run preprocess "
                "again."
            )
        features = np.load(path)
        if features.ndim != 3 or len(features) != self.num_frames:
            raise DatasetError(
                f"{path} has shape {features.shape}; expected [{self.num_frames}, A, D]"
            )
        return features

    def expression_channels(self, names) -> np.ndarray:
        """float32 [T, len(names)], the named columns in that order."""
        missing = [n for n in names if n not in self.expression_names]
        if missing:
            raise DatasetError(
                f"{self.path} has no expression channels {missing}; it has "
                f"{list(self.expression_names)}"
            )
        return self.expression[:, [self.expression_names.index(n) for n in names]]

    def lips_boxes(self, margin: float = 0.25) -> np.ndarray:
        """int32 [T, 4] (row0, row1, col0, col1) around the outer lips, each side widened by
        `margin` of the size."""
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
        """float32 [T], height of the inner-lip opening (points 13 to 14) in px."""
        return np.linalg.norm(self.landmarks[:, 14] - self.landmarks[:, 13], axis=-1)

    def backgrounds(self) -> np.ndarray:
        """uint8 [T, H, W, 3], the torso layer over the plate: B of eq. (14)."""
        out = np.empty((*self.torso.shape[:3], 3), np.uint8)
        for picture, rgba in zip(out, self.torso, strict=True):
            alpha = np.ascontiguousarray(rgba[..., 3])
            picture[:] = self.background
            cv2.copyTo(cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB), cv2.compare(alpha, 255, 0), picture)
            edge = cv2.inRange(alpha, 1, 254) > 0  # few: the rest needs no arithmetic
            share = alpha[edge, None].astype(np.float32) / 255.0
            mixed = rgba[edge, :3] * share + self.background[edge].astype(np.float32) * (1 - share)
            picture[edge] = np.rint(mixed)
        return out


def boxes_around(points, height, width, margin):
    """points [T, P, 2] (x, y) px -> int32 [T, 4] (row0, row1, col0, col1), half open, inside the
    image, never empty."""
    low, high = points.min(1), points.max(1)
    pad = margin * (high - low).max(-1, keepdims=True)
    low, high = np.floor(low - pad), np.ceil(high + pad) + 1
    limit = np.array([width, height])
    low = np.clip(low, 0, limit - 1)
    high = np.clip(high, low + 1, limit)
    return np.stack([low[:, 1], high[:, 1], low[:, 0], high[:, 0]], -1).astype(np.int32)


def save_arrays(path, **arrays):
    """Writes `NAME.npy` (frames, labels, torso, audio_*), `background.png` and the three npz files.

    Keys: frames, labels, torso, background, audio_<extractor>, camera, landmarks, expression (the
    last three are dicts of arrays with the fields of the table above). Each file appears whole or
    not at all.
    """
    path = pathlib.Path(path)
    path.mkdir(parents=True, exist_ok=True)
    for name, value in arrays.items():
        suffix = ".npz" if isinstance(value, dict) else ".png" if name == "background" else ".npy"
        part = path / f".{name}.part{suffix}"
        if suffix == ".npz":
            np.savez(part, **value)
        elif suffix == ".png":
            part.write_bytes(cv2.imencode(".png", value[..., ::-1])[1])  # imwrite hides errors
        else:
            np.save(part, value)
        part.replace(path / f"{name}{suffix}")


def save_meta(
    path, *, num_frames, width, height, intrinsics, source, weights=None, consent=None, **extra
):
    """Writes `meta.json`, the last file: a folder without it is unfinished.

    `intrinsics` is (fx, fy, cx, cy) px.
    """
    cut = int(num_frames * 10 / 11)
    meta = {
        "schema": SCHEMA,
        "T": int(num_frames),
        "width": int(width),
        "height": int(height),
        "fps": FPS,
        "intrinsics": dict(zip(("fx", "fy", "cx", "cy"), map(float, intrinsics), strict=True)),
        "split": {"train": [0, cut], "test": [cut, int(num_frames)]},
        "source": source,
        "weights": weights or {},
        "consent": consent,
        **extra,
    }
    part = pathlib.Path(path) / ".meta.part.json"
    part.write_text(json.dumps(meta, indent=2))
    part.replace(pathlib.Path(path) / "meta.json")


def load_clip(path, max_side: int = 0) -> Clip:
    """Opens a processed folder, or a packed one (`clip/pack.py`); frames, labels,
    torso, landmarks and intrinsics shrink together until the longer side is at most `max_side` px
    (0: they stay as they are).

    Raises:
      DatasetError: no such folder, an unfinished one, another schema, or arrays that do not fit
        together.
      ValueError: a packed folder that is damaged.
    """
    path = pathlib.Path(path)
    if path.is_file():
        from fg3dgs_jax.clip import pack  # here, because packing loads clips

        path = pack.opened(path)
    if not (path / "meta.json").exists():
        unfinished = "is an unfinished processed folder (no meta.json)"
        raise DatasetError(
            f"{path} {unfinished if path.is_dir() else 'does not exist'}; make it with: "
            f"python -m fg3dgs_jax.preprocess --video VIDEO --out {path}"
        )
    meta = json.loads((path / "meta.json").read_text())
    if meta.get("schema") != SCHEMA:
        raise DatasetError(
            f"{path} has schema {meta.get('schema')}; this version reads {SCHEMA}: run preprocess "
            "again"
        )
    big = {name: np.load(path / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
    frames, height, width = meta["T"], meta["height"], meta["width"]
    for name, array in big.items():
        if array.shape[:3] != (frames, height, width):
            raise DatasetError(
                f"{path}/{name}.npy has shape {array.shape}; meta.json says "
                f"[{frames}, {height}, {width}]"
            )
    background = cv2.imread(str(path / "background.png"))[..., ::-1]
    camera, landmarks, expression = (
        np.load(path / f"{n}.npz") for n in ("camera", "landmarks", "expression")
    )
    intrinsics = np.array([meta["intrinsics"][k] for k in ("fx", "fy", "cx", "cy")])
    points = landmarks["pixels"].astype(np.float32)
    if 0 < max_side < max(width, height):
        scale = max_side / max(width, height)
        size = (round(width * scale), round(height * scale))
        big = {
            n: _resize(a, size, cv2.INTER_NEAREST if n == "labels" else cv2.INTER_AREA)
            for n, a in big.items()
        }
        background = cv2.resize(background, size, interpolation=cv2.INTER_AREA)
        ratio = np.array([size[0] / width, size[1] / height])
        intrinsics = intrinsics * np.tile(ratio, 2)
        points = points * ratio.astype(np.float32)
    return Clip(
        path=path,
        meta=meta,
        background=np.ascontiguousarray(background),
        world_to_camera=camera["world_to_camera"].astype(np.float32),
        valid=camera["valid"],
        intrinsics=tuple(map(float, intrinsics)),
        landmarks=points,
        landmarks_valid=landmarks["valid"],
        expression=expression["e"].astype(np.float32),
        expression_names=tuple(map(str, expression["names"])),
        **big,
    )


def _resize(array, size, interpolation):
    return np.stack(
        [cv2.resize(np.ascontiguousarray(a), size, interpolation=interpolation) for a in array]
    )
