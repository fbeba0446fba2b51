"""The pretrained networks that some metrics need, each with the reason when it is not there.

A metric without its network is null in `metrics.json`: there are no stand-ins.
"""

import jax
import numpy as np

from fg3dgs_jax.experts.optional import OptionalNetwork
from fg3dgs_jax.weights import store

MESH_LMD = "mediapipe face mesh (not FAN)"


def load_lpips() -> OptionalNetwork:
    """LPIPS (AlexNet v0.1): call(a, b) -> float, for images [H, W, 3] in [0, 1]."""
    path = store.find("lpips_alex")
    if path is None:
        return OptionalNetwork(None, store.not_found("lpips_alex"))
    from fg3dgs_jax.experts.image import lpips

    params, distance = lpips.load(path), jax.jit(lpips.lpips)

    def call(a, b):
        if min(a.shape[:2]) < 32:  # the last feature maps of smaller pictures are empty
            return None
        return float(
            distance(params, np.asarray(a, np.float32)[None], np.asarray(b, np.float32)[None])[0]
        )

    return OptionalNetwork(call, f"lpips alex v0.1 ({path.name})")


def load_landmarks() -> OptionalNetwork:
    """MediaPipe's face mesh: call(uint8 [H, W, 3]) -> float32 [478, 2] px, or None where no face is
    found.
    """
    path = store.find("face_landmarker")
    if path is None:
        return OptionalNetwork(None, store.not_found("face_landmarker"))
    try:
        import mediapipe as mp
    except ImportError:
        return OptionalNetwork(
            None,
            "mediapipe is not installed; install the extra: pip install 'fg3dgs_jax[preprocess]'",
        )
    # Single pictures, not a video: tracking would carry the truth of one frame into the next.
    options = mp.tasks.vision.FaceLandmarkerOptions(
        base_options=mp.tasks.BaseOptions(model_asset_path=str(path)),
        running_mode=mp.tasks.vision.RunningMode.IMAGE,
    )
    detector = mp.tasks.vision.FaceLandmarker.create_from_options(options)

    def call(image):
        image = np.ascontiguousarray(image)
        found = detector.detect(
            mp.Image(image_format=mp.ImageFormat.SRGB, data=image)
        ).face_landmarks
        if not found:
            return None
        size = (image.shape[1], image.shape[0])
        return np.array([(p.x, p.y) for p in found[0]], np.float32) * np.float32(size)

    return OptionalNetwork(call, MESH_LMD, detector.close)


def load_fan(faces: OptionalNetwork) -> OptionalNetwork:
    """FAN: call(uint8 RGB [H, W, 3], mesh box or None) -> lip points [20, 2] px, or None.

    Args:
      faces: S3FD, see `lse.load_faces`; without its call the mesh's box is taken, where there is
        one.
    """
    path = store.find("fan_2d4")
    if path is None:
        return OptionalNetwork(None, store.not_found("fan_2d4"))
    from fg3dgs_jax.experts.face import fan

    variables = fan.load(path)

    def call(image, box):
        if faces.call is not None:
            found = faces.call(image)
            box = found[0] if len(found) else None
        return None if box is None else fan.landmarks(variables, image, box)[fan.LIPS]

    return OptionalNetwork(call, f"FAN 2D-4 ({path.name}), boxes: {faces.source}")
