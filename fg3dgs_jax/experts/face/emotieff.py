"""EmotiEffLib's facial emotion networks (EfficientNet on AffectNet), run by onnxruntime.

Beside the logits they give the feature vector of their last layer, the emotion latent proper: 1280
numbers of a b0, 1408 of a b2. onnxruntime is the optional extra `emotion`.
"""

import os
import pathlib
from typing import Any, NamedTuple

import cv2
import numpy as np

from fg3dgs_jax.weights.formats import onnx_graph
from fg3dgs_jax.weights.store import WeightsMissing

EMOTIONS = (
    "anger",
    "contempt",
    "disgust",
    "fear",
    "happiness",
    "neutral",
    "sadness",
    "surprise",
)
_SIZES = {"_b0_": 224, "_b2_": 260}  # px, where the graph itself leaves the size open
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)


class Network(NamedTuple):
    """A network ready to run."""

    session: Any  # onnxruntime's, with outputs logits and features
    size: int  # px of the square faces it takes
    logits: str
    features: str


class Emotion(NamedTuple):
    """What a network says of B faces."""

    features: np.ndarray  # float32 [B, 1280] or [B, 1408]
    logits: np.ndarray  # float32 [B, 8] of EMOTIONS
    probabilities: np.ndarray  # float32 [B, 8]
    mood: np.ndarray | None  # float32 [B, 2]: valence, arousal; None of networks without them


def load(path: os.PathLike | str) -> Network:
    """A published `enet_b0_8_*.onnx` or `enet_b2_8*.onnx`.

    Raises:
      WeightsMissing: onnxruntime is not installed, or the file is no such network.
    """
    path = pathlib.Path(path)
    try:
        import onnxruntime
    except ImportError:
        raise WeightsMissing(
            "EmotiEffLib's networks need onnxruntime: pip install 'fg3dgs_jax[emotion]'"
        ) from None
    try:
        model = path.read_bytes()
        heads = [node for node in onnx_graph.nodes(model) if node.kind == "Gemm"]
        if not heads:
            raise WeightsMissing("it has no Gemm as its last layer")
        features, logits = heads[-1].inputs[0], heads[-1].outputs[0]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            onnx_graph.with_output(model, features), options, providers=["CPUExecutionProvider"]
        )
    # onnxruntime's own errors share no base class but this one.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsMissing(f"{path} is none of EmotiEffLib's networks: {reason}") from None
    shape = session.get_inputs()[0].shape
    outputs = [output.name for output in session.get_outputs()]
    if len(shape) != 4 or logits not in outputs:
        raise WeightsMissing(
            f"{path} takes {shape} and gives {outputs}; expected faces [B, 3, S, S] and {logits!r}"
        )
    return Network(session, _size(shape, path), logits, features)


def run(network: Network, faces: np.ndarray) -> Emotion:
    """Of normalised faces, float32 [B, 3, S, S] from `crops`."""
    outputs = network.session.run(
        [network.features, network.logits], {network.session.get_inputs()[0].name: faces}
    )
    features, scores = (np.asarray(part, np.float32) for part in outputs)
    if scores.shape[1] not in (len(EMOTIONS), len(EMOTIONS) + 2):
        raise WeightsMissing(
            f"the network gives {scores.shape[1]} scores; expected {len(EMOTIONS)} emotions, or "
            "these and valence and arousal"
        )
    logits, mood = scores[:, : len(EMOTIONS)], scores[:, len(EMOTIONS) :]
    powers = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = powers / powers.sum(1, keepdims=True)
    return Emotion(features, logits, probabilities, mood if mood.size else None)


def crops(network: Network, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Faces cut out as the network saw them in training: stretched to a square.

    Args:
      network: whose size and normalisation the faces get.
      image: uint8 RGB [H, W, 3].
      boxes: [B, 4] row0, row1, col0, col1 in px, half open; cut at the picture's border.

    Returns:
      float32 [B, 3, S, S], by ImageNet's mean and deviation.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image is {image.dtype} {image.shape}; expected uint8 RGB [H, W, 3]")
    limits = np.array([image.shape[0], image.shape[0], image.shape[1], image.shape[1]])
    faces = []
    for box in np.asarray(boxes):
        row0, row1, col0, col1 = np.clip(np.rint(box), 0, limits).astype(int)
        if row1 <= row0 or col1 <= col0:
            raise ValueError(f"the box {np.asarray(box).tolist()} holds no pixel of the picture")
        face = cv2.resize(image[row0:row1, col0:col1], (network.size, network.size))
        faces.append(((face.astype(np.float32) / 255.0 - _MEAN) / _STD).transpose(2, 0, 1))
    return np.stack(faces)


def _size(shape, path):
    sizes = {side for side in shape[2:] if isinstance(side, int)}
    if len(sizes) == 1:
        return sizes.pop()
    named = [size for part, size in _SIZES.items() if part in f"{path.stem}_"]
    if not named:
        raise WeightsMissing(
            f"{path} does not tell how large its faces are; expected its published name, such as "
            "enet_b0_8_best_afew.onnx or enet_b2_8.onnx"
        )
    return named[0]
