"""What tells scenes and faces apart: of every frame a small grey picture, and a small face."""

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np

from fg3dgs_jax.clip.landmarks import EYE_CORNERS, NOSE_BASE
from fg3dgs_jax.preprocessing.check import sample

FACE = (18, 24)  # px (height, width) of the small face: brows to nose, without the mouth
# Where outer eye corners and base of the nose lie in it, px.
ANCHORS = np.array([[2, 8], [22, 8], [12, 21]], np.float32)
ALIKE = 0.75  # of the pixels: the most similar ones decide, the others may be a person who moves
COLOUR_SCALE, SHAPE_SCALE = 15.0, 0.3  # how far one person's faces differ in the course of a clip


class Looks(NamedTuple):
    """What is kept of T frames."""

    thumbs: np.ndarray  # float32 [T, 36, 64] grey
    faces: np.ndarray | None  # uint8 [T, 18, 24, 3], 0 where no face is. None: not looked at


def look(frames: Iterable[np.ndarray], pixels: np.ndarray, valid: np.ndarray) -> Looks:
    """Looks at every frame of a clip.

    Args:
      frames: T pictures, uint8 [H, W, 3] RGB.
      pixels: [T, 478, 2] px, landmarks.
      valid: bool [T], frames with a face.
    """
    thumbs = np.empty((len(valid), *sample.THUMB[::-1]), np.float32)
    faces = np.zeros((len(valid), *FACE, 3), np.uint8)
    for i, frame in enumerate(frames):
        thumbs[i] = sample.thumb(frame)
        if valid[i]:
            faces[i] = small_face(frame, pixels[i])
    return Looks(thumbs, faces)


def small_face(frame: np.ndarray, points: np.ndarray) -> np.ndarray:
    """uint8 [18, 24, 3]: the face of a picture [H, W, 3] with landmarks [478, 2] px, upright."""
    corners = points[[*EYE_CORNERS, NOSE_BASE]].astype(np.float32)
    scale = float(np.linalg.norm(corners[1] - corners[0])) / 20  # px a px of the small face
    reach = 2 * np.ptp(corners, 0).max() + 8
    low = np.clip((corners.mean(0) - reach).astype(int), 0, np.array(frame.shape[1::-1]) - 2)
    high = np.maximum((corners.mean(0) + reach).astype(int), low + 2)
    part = np.ascontiguousarray(frame[low[1] : high[1], low[0] : high[0]])
    part = cv2.GaussianBlur(part, (0, 0), max(0.5 * scale, 0.3))
    move = cv2.getAffineTransform(corners - low.astype(np.float32), ANCHORS)
    return cv2.warpAffine(part, move, FACE[::-1], borderMode=cv2.BORDER_REPLICATE)


def apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """[...]: grey levels between thumbs [..., P], over the most similar of their P pixels."""
    off = np.sort(np.abs(one - other), -1)
    return off[..., : max(1, int(ALIKE * off.shape[-1]))].mean(-1)


def faces_apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """[...]: how different small faces [..., 18, 24, 3] are.

    One person in one light stays below 2 in the course of a clip, other persons are mostly above.
    """
    one, other = np.asarray(one, np.float32), np.asarray(other, np.float32)
    colour = np.abs(one - other).mean((-3, -2, -1))
    a, b = (x.mean(-1).reshape(*x.shape[:-3], -1) for x in (one, other))
    a, b = a - a.mean(-1, keepdims=True), b - b.mean(-1, keepdims=True)
    size = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    shape = 1 - (a * b).sum(-1) / np.maximum(size, 1e-6)
    return colour / COLOUR_SCALE + shape / SHAPE_SCALE
