"""The pretrained networks that some metrics need, each with the reason where it is missing.

A metric without its network is null in `metrics.json`: there are no stand-ins.
"""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from fg3dgs_jax.experts.face import fan, mediapipe_runtime
from fg3dgs_jax.experts.image import lpips
from fg3dgs_jax.experts.optional import OptionalNetwork
from fg3dgs_jax.weights import store

MESH_LMD = "mediapipe face mesh (not FAN)"
# px; the last feature maps of smaller pictures are empty.
MIN_LPIPS_SIDE = 32


NO_FAN = OptionalNetwork(None, "FAN was not asked for")


class Networks(NamedTuple):
    """The networks that measure every frame."""

    lpips: OptionalNetwork  # see `load_lpips`
    mesh: OptionalNetwork  # see `load_landmarks`
    fan: OptionalNetwork = NO_FAN  # see `load_fan`


def load(
    name: str, source: str, build: Callable[[pathlib.Path], Callable[..., Any]]
) -> OptionalNetwork:
    """Returns an expert from its weights, or the reason why it is missing.

    Args:
      name: of the weights in the registry.
      source: where its figures come from, as the reports show it.
      build: takes the path of the weights, returns the function to call.
    """
    path = store.find(name)
    if path is None:
        return OptionalNetwork(None, store.not_found(name))
    return OptionalNetwork(build(path), f"{source} ({path.name})")


def lpips_distance(path: pathlib.Path) -> Callable[[np.ndarray, np.ndarray], float]:
    """Returns LPIPS with the weights of a file: call(a, b), images [H, W, 3] in [0, 1]."""
    params, distance = lpips.load(path), jax.jit(lpips.lpips)

    def call(a, b):
        pair = (np.asarray(image, np.float32)[None] for image in (a, b))
        return float(distance(params, *pair)[0])

    return call


def load_lpips() -> OptionalNetwork:
    """Returns LPIPS (AlexNet v0.1): call(a, b) -> float, or None where a picture is too small."""

    def build(path):
        distance = lpips_distance(path)

        def call(a, b):
            return distance(a, b) if min(a.shape[:2]) >= MIN_LPIPS_SIDE else None

        return call

    return load("lpips_alex", "lpips alex v0.1", build)


def load_landmarks() -> OptionalNetwork:
    """Returns MediaPipe's face mesh.

    call(uint8 [H, W, 3]) -> float32 [478, 2] px, or None where it finds no face.
    """
    path = store.find("face_landmarker")
    if path is None:
        return OptionalNetwork(None, store.not_found("face_landmarker"))
    try:
        mp, tasks = mediapipe_runtime.load()
    except mediapipe_runtime.MediaPipeMissing:
        return OptionalNetwork(
            None,
            "mediapipe is not installed; install the extra: pip install 'fg3dgs_jax[preprocess]'",
        )
    # Single pictures, not a video: tracking would carry the truth of one frame into the next.
    options = tasks.vision.FaceLandmarkerOptions(
        base_options=tasks.BaseOptions(model_asset_path=str(path)),
        running_mode=tasks.vision.RunningMode.IMAGE,
    )
    detector = tasks.vision.FaceLandmarker.create_from_options(options)

    def call(image):
        image = np.ascontiguousarray(image)
        picture = mp.Image(image_format=mp.ImageFormat.SRGB, data=image)
        faces = detector.detect(picture).face_landmarks
        if not faces:
            return None
        size = np.array([image.shape[1], image.shape[0]], np.float32)
        return np.array([(p.x, p.y) for p in faces[0]], np.float32) * size

    return OptionalNetwork(call, MESH_LMD, detector.close)


def load_fan(faces: OptionalNetwork) -> OptionalNetwork:
    """Returns FAN: call(uint8 RGB [H, W, 3], mesh box or None) -> lip points [20, 2] px, or None.

    Args:
      faces: S3FD, see `lse.load_faces`. Without its call FAN takes the mesh box, where it is given.
    """

    def build(path):
        variables = fan.load(path)

        def call(image, box):
            if faces.call is not None:
                boxes = faces.call(image)
                box = boxes[0] if len(boxes) else None
            return None if box is None else fan.landmarks(variables, image, box)[fan.LIPS]

        return call

    expert = load("fan_2d4", "FAN 2D-4", build)
    if expert.call is None:
        return expert
    return expert._replace(source=f"{expert.source}, boxes: {faces.source}")
