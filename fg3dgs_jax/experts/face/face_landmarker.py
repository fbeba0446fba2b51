"""MediaPipe's Face Landmarker: 478 landmarks, 52 blendshapes, head rotation of a picture."""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from fg3dgs_jax.experts.face import mediapipe_runtime
from fg3dgs_jax.media.clock import FPS

NUM_LANDMARKS = 478


class FaceTrack(NamedTuple):
    """What the landmarker saw in T pictures; rows without a face are zero and not valid."""

    pixels: np.ndarray  # float32 [T, 478, 2] px, (x, y), origin top left
    depth: np.ndarray  # float32 [T, 478], in px like x; smaller is nearer
    blendshapes: np.ndarray  # float32 [T, 52] in [0, 1]
    names: tuple[str, ...]  # [52]
    rotation: np.ndarray  # float32 [T, 3, 3], head to camera, OpenCV axes
    num_faces: np.ndarray  # int32 [T], 0, 1 or 2

    @property
    def valid(self) -> np.ndarray:
        """Where a face was found, bool [T]."""
        return self.num_faces > 0


class Tracker:
    """Follows the face through pictures as they pass by; of two faces the larger one is kept.

    Two faces are asked for on purpose: so a second person is noticed, and MediaPipe's smoothing,
    which lags behind the lips and works on a single face only, stays off.
    """

    def __init__(self, model_path: os.PathLike | str, fps: float = FPS):
        """Prepares for pictures that follow each other at `fps`; MediaPipe loads with the first."""
        self.model_path, self.fps = model_path, fps
        self._rows: list[tuple[np.ndarray, np.ndarray, np.ndarray, int]] = []
        self._names: tuple[str, ...] = ()

    def watch(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields uint8 RGB pictures [H, W, 3] unchanged, in their order."""
        mp, tasks = mediapipe_runtime.load()
        options = tasks.vision.FaceLandmarkerOptions(
            base_options=tasks.BaseOptions(model_asset_path=str(self.model_path)),
            running_mode=tasks.vision.RunningMode.VIDEO,
            num_faces=2,
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
        )
        with mediapipe_runtime.create(tasks.vision.FaceLandmarker, options) as landmarker:
            for i, frame in enumerate(frames):
                image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(frame))
                result = landmarker.detect_for_video(image, round(i * 1000 / self.fps))
                self._rows.append(self._row(result, frame))
                yield frame

    def _row(self, result, frame):
        count = len(result.face_landmarks)
        if not count:
            return np.zeros((NUM_LANDMARKS, 3)), np.zeros(52), np.eye(3), 0
        size = np.array([frame.shape[1], frame.shape[0], frame.shape[1]])
        faces = [np.array([(p.x, p.y, p.z) for p in face]) * size for face in result.face_landmarks]
        k = int(np.argmax([np.ptp(f[:, 0]) for f in faces]))
        shapes = result.face_blendshapes[k]
        self._names = tuple(b.category_name for b in shapes)
        flip = np.diag([1.0, -1.0, -1.0])  # OpenGL's axes to OpenCV's, on both sides
        turn = flip @ result.facial_transformation_matrixes[k][:3, :3] @ flip
        return faces[k], np.array([b.score for b in shapes]), turn, count

    def track(self) -> FaceTrack:
        """Returns what was seen in the pictures that have passed so far."""
        points, shapes, turns, counts = zip(*self._rows, strict=True) if self._rows else ((),) * 4
        points = np.asarray(points, np.float32).reshape(-1, NUM_LANDMARKS, 3)
        return FaceTrack(
            pixels=points[..., :2],
            depth=points[..., 2],
            blendshapes=np.asarray(shapes, np.float32).reshape(-1, 52),
            names=self._names,
            rotation=np.asarray(turns, np.float32).reshape(-1, 3, 3),
            num_faces=np.asarray(counts, np.int32),
        )


def detect(
    model_path: os.PathLike | str,
    frames: Iterable[np.ndarray],
    fps: float = FPS,
    progress: Callable[[Iterable], Iterable] = iter,
) -> FaceTrack:
    """Runs over uint8 RGB pictures [H, W, 3] in their order, see `Tracker`."""
    tracker = Tracker(model_path, fps)
    for _ in tracker.watch(progress(frames)):
        pass
    return tracker.track()


def load_track(path: os.PathLike | str) -> FaceTrack:
    """Reads the `faces.npz` of a processed folder."""
    with np.load(path) as file:
        track = FaceTrack(**{key: file[key] for key in file.files})
    return track._replace(names=tuple(map(str, track.names)))
