"""From what a parsing network sees to the labels of `clip/format.py`, with landmarks to help.

A network gives each pixel a class and a confidence that it is the person. The person's edge then
comes from the picture, as it does without a network (`preprocessing/label/from_landmarks.py`).
"""

import cv2
import numpy as np

from fg3dgs_jax.clip import landmarks
from fg3dgs_jax.clip.format import LABELS
from fg3dgs_jax.clip.landmarks import FACE_OVAL, LEFT_EYE, OUTER_LIPS, RIGHT_EYE
from fg3dgs_jax.preprocessing.label import from_landmarks

# MediaPipe's selfie_multiclass
HAIR, BODY_SKIN, FACE_SKIN, CLOTHES, OTHERS = 1, 2, 3, 4, 5

LIP_MARGIN = 0.04  # of the face's width: how far outside the lips' outline a tooth may be found
_PAIRS = (  # of each: left and right, and where they are
    ("left_brow", "right_brow", landmarks.LEFT_BROW, landmarks.RIGHT_BROW),
    ("left_eye", "right_eye", LEFT_EYE, RIGHT_EYE),
    ("left_ear", "right_ear", landmarks.FACE_SIDES[1:], landmarks.FACE_SIDES[:1]),
)


def from_celebamask(
    frame: np.ndarray,
    points: np.ndarray,
    parts: np.ndarray,
    confidence: np.ndarray,
    teeth: np.ndarray | None = None,
) -> from_landmarks.Parsed:
    """Labels one frame that a network of CelebAMask-HQ's 19 classes has seen.

    Its classes are ours and are kept, but for these:

    - Left and right. Ours are the person's own. The data set does not define its `l_` and `r_`, and
      training that mirrors pictures may have mixed them. So brows, eyes and ears go by the
      landmarks: the person's left is what lies nearer to the left one.
    - Teeth. The talking-head family takes "face xor teeth" and "mouth or teeth" as masks. Here a
      pixel has one label. A tooth inside or at the lips is a tooth, whatever it was before, so it
      is in the mouth's mask and out of the face's.

    Args:
      frame: uint8 [H, W, 3] RGB.
      points: float [478, 2] px, smoothed with `over_time.smooth`.
      parts: uint8 [H, W], the likeliest class but background, 1 to 18.
      confidence: float32 [H, W] in [0, 1], 1 - the probability of background.
      teeth: bool [H, W] from another network; None: found by colour inside the mouth.
    """
    face = landmarks.polygon(points[list(FACE_OVAL)], frame.shape[:2])
    person, alpha = from_landmarks.person_and_alpha(frame, confidence, face)
    labels = np.where(person, parts, LABELS["background"]).astype(np.uint8)
    own_sides(labels, points)
    if teeth is None:
        teeth = from_landmarks.teeth_mask(frame, labels == LABELS["mouth"])
    else:
        teeth = teeth & person & _lips(points, labels.shape)
    labels[teeth] = LABELS["teeth"]
    return from_landmarks.Parsed(labels, alpha)


def from_multiclass(
    frame: np.ndarray, points: np.ndarray, confidences: np.ndarray
) -> from_landmarks.Parsed:
    """Labels one frame that MediaPipe's selfie_multiclass has seen.

    Hair, clothes and body skin (called neck) are the network's. Face skin is too; what of it lies
    beside the outline is an ear, and the features are drawn from the landmarks, except where hair
    covers them. Others are glasses above the base of the nose, a hat elsewhere on the head, and
    cloth below it.

    Args:
      frame: uint8 [H, W, 3] RGB.
      points: float [478, 2] px, smoothed with `over_time.smooth`.
      confidences: float32 [H, W, 6]: background, hair, body skin, face skin, clothes, others.
    """
    face = landmarks.polygon(points[list(FACE_OVAL)], frame.shape[:2])
    person, alpha = from_landmarks.person_and_alpha(frame, 1 - confidences[..., 0], face)
    parts = np.where(person, 1 + confidences[..., 1:].argmax(-1), 0)
    head = from_landmarks.head_region(points, person, face)
    above = np.arange(len(frame))[:, None] < points[landmarks.NOSE_BASE, 1]
    labels = np.zeros(face.shape, np.uint8)
    labels[person] = LABELS["cloth"]
    labels[parts == BODY_SKIN] = LABELS["neck"]
    labels[parts == FACE_SKIN] = LABELS["skin"]
    from_landmarks.name_ears(labels, (parts == FACE_SKIN) & ~face, points)
    labels[(parts == OTHERS) & head & ~face] = LABELS["hat"]
    labels[face | from_landmarks.under_chin(face, labels, points)] = LABELS["skin"]
    labels[(parts == OTHERS) & face & above] = LABELS["glasses"]
    from_landmarks.draw_features(labels, frame, points)
    labels[parts == HAIR] = LABELS["hair"]
    return from_landmarks.Parsed(labels, alpha)


def own_sides(labels: np.ndarray, points: np.ndarray) -> None:
    """Brows, eyes and ears in `labels` [H, W] become left or right by what landmarks they are by.

    Left is the person's own, as everywhere here.
    """
    for left, right, *where in _PAIRS:
        rows, columns = np.nonzero((labels == LABELS[left]) | (labels == LABELS[right]))
        at = np.stack([columns, rows], -1) + 0.5
        to_left, to_right = (np.linalg.norm(at - points[list(w)].mean(0), axis=-1) for w in where)
        labels[rows, columns] = np.where(to_left < to_right, LABELS[left], LABELS[right])


def _lips(points, shape):
    """Mask [H, W]: the mouth with its lips, and a little around it."""
    lips = landmarks.polygon(points[list(OUTER_LIPS)], shape)
    sides = points[list(landmarks.FACE_SIDES)]
    reach = 1 + round(LIP_MARGIN * float(np.linalg.norm(sides[1] - sides[0])))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2)
    return cv2.dilate(lips.astype(np.uint8), kernel) > 0
