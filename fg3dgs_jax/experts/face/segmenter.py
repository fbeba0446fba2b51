"""MediaPipe's image segmenters: how sure they are, pixel by pixel, of each of their classes."""

import os
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from fg3dgs_jax.experts.face import mediapipe_runtime
from fg3dgs_jax.media.clock import FPS


def segment(
    model_path: os.PathLike | str,
    frames: Iterable[np.ndarray],
    fps: float = FPS,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Iterator[np.ndarray]:
    """Yields float32 [H, W] in [0, 1] (1 = person) for each uint8 RGB picture [H, W, 3]."""
    for masks in confidences(model_path, frames, fps, progress):
        yield masks[..., -1]  # the last class of the selfie segmenter is the person


def confidences(
    model_path: os.PathLike | str,
    frames: Iterable[np.ndarray],
    fps: float = FPS,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Iterator[np.ndarray]:
    """Yields float32 [H, W, classes] in [0, 1] for each uint8 RGB picture [H, W, 3]."""
    mp, tasks = mediapipe_runtime.load()
    options = tasks.vision.ImageSegmenterOptions(
        base_options=tasks.BaseOptions(model_asset_path=str(model_path)),
        running_mode=tasks.vision.RunningMode.VIDEO,
        output_confidence_masks=True,
        output_category_mask=False,
    )
    with mediapipe_runtime.create(tasks.vision.ImageSegmenter, options) as segmenter:
        for i, frame in enumerate(progress(frames)):
            image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(frame))
            result = segmenter.segment_for_video(image, round(i * 1000 / fps))
            masks = [np.array(m.numpy_view(), np.float32) for m in result.confidence_masks]
            yield np.stack([m.reshape(frame.shape[:2]) for m in masks], -1)
