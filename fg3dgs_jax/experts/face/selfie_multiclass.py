"""MediaPipe's selfie_multiclass: hair, body skin, face skin, clothes and others, pixel by pixel.

The network sees the picture stretched to 256 x 256 px, so that its edges are coarser than those of
a network that looks at 512 x 512; it needs no more than MediaPipe.
"""

import os
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from fg3dgs_jax.experts.face import segmenter
from fg3dgs_jax.media.clock import FPS

CLASSES = ("background", "hair", "body_skin", "face_skin", "clothes", "others")


def segment(
    model_path: os.PathLike | str,
    frames: Iterable[np.ndarray],
    fps: float = FPS,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Iterator[np.ndarray]:
    """Yields float32 [H, W, 6], how sure it is of each of `CLASSES`, for each uint8 RGB picture.

    Raises:
      ValueError: mediapipe is not installed, or the model is another one.
    """
    for masks in segmenter.confidences(model_path, frames, fps, progress):
        if masks.shape[-1] != len(CLASSES):
            raise ValueError(
                f"{model_path} tells {masks.shape[-1]} classes apart; expected the "
                f"{len(CLASSES)} of selfie_multiclass_256x256.tflite"
            )
        yield np.clip(masks, 0.0, 1.0)
