"""MediaPipe's selfie segmenter: how sure it is, pixel by pixel, that this is the person."""

import numpy as np

from fg3dgs_jax.experts import mediapipe_runtime


def segment(model_path, frames, fps: float = 25.0, progress=iter):
    """Yields float32 [H, W] in [0, 1] (1 = person) for each uint8 RGB picture [H, W, 3]."""
    mp, tasks = mediapipe_runtime.load()
    options = tasks.vision.ImageSegmenterOptions(
        base_options=tasks.BaseOptions(model_asset_path=str(model_path)),
        running_mode=tasks.vision.RunningMode.VIDEO,
        output_confidence_masks=True,
        output_category_mask=False,
    )
    with tasks.vision.ImageSegmenter.create_from_options(options) as segmenter:
        for i, frame in enumerate(progress(frames)):
            image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(frame))
            found = segmenter.segment_for_video(image, round(i * 1000 / fps))
            mask = found.confidence_masks[-1].numpy_view()  # the last class is the person
            yield np.array(mask, np.float32).reshape(frame.shape[:2])
