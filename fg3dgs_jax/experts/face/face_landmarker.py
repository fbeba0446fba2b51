"""MediaPipe's Face Landmarker: 478 landmarks, 52 blendshapes, head rotation of a picture."""

import os
from collections.abc import Callable, Iterable
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


def detect(
    model_path: os.PathLike | str,
    frames: Iterable[np.ndarray],
    fps: float = FPS,
    progress: Callable[[Iterable], Iterable] = iter,
) -> FaceTrack:
    """Runs over uint8 RGB pictures [H, W, 3] in their order; of two faces the larger one is kept.

    Two faces are asked for on purpose: so a second person is noticed, and MediaPipe's smoothing,
    which lags behind the lips and works on a single face only, stays off.
    """
    mp, tasks = mediapipe_runtime.load()
    options = tasks.vision.FaceLandmarkerOptions(
        base_options=tasks.BaseOptions(model_asset_path=str(model_path)),
        running_mode=tasks.vision.RunningMode.VIDEO,
        num_faces=2,
        output_face_blendshapes=True,
        output_facial_transformation_matrixes=True,
    )
    points, shapes, turns, counts, names = [], [], [], [], ()
    with mediapipe_runtime.create(tasks.vision.FaceLandmarker, options) as landmarker:
        for i, frame in enumerate(progress(frames)):
            image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(frame))
            result = landmarker.detect_for_video(image, round(i * 1000 / fps))
            counts.append(len(result.face_landmarks))
            if not counts[-1]:
                points.append(np.zeros((NUM_LANDMARKS, 3)))
                shapes.append(np.zeros(52))
                turns.append(np.eye(3))
                continue
            size = np.array([frame.shape[1], frame.shape[0], frame.shape[1]])
            faces = [
                np.array([(p.x, p.y, p.z) for p in face]) * size for face in result.face_landmarks
            ]
            k = int(np.argmax([np.ptp(f[:, 0]) for f in faces]))
            points.append(faces[k])
            shapes.append([b.score for b in result.face_blendshapes[k]])
            names = tuple(b.category_name for b in result.face_blendshapes[k])
            flip = np.diag([1.0, -1.0, -1.0])  # OpenGL's axes to OpenCV's, on both sides
            turns.append(flip @ result.facial_transformation_matrixes[k][:3, :3] @ flip)
    points = np.asarray(points, np.float32).reshape(-1, NUM_LANDMARKS, 3)
    return FaceTrack(
        pixels=points[..., :2],
        depth=points[..., 2],
        blendshapes=np.asarray(shapes, np.float32).reshape(-1, 52),
        names=names,
        rotation=np.asarray(turns, np.float32).reshape(-1, 3, 3),
        num_faces=np.asarray(counts, np.int32),
    )
