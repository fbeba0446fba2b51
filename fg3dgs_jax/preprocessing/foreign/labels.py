"""Labels from the colours of other projects' parsing pictures, with landmarks for what they merge.

Their six colours name background, head, mouth, neck, cloth and hair. In AD-NeRF and ER-NeRF mouth
and hair are head. Eyes, brows, nose and lips are in none: they come from the landmarks.
"""

import numpy as np

from fg3dgs_jax.clip import landmarks
from fg3dgs_jax.clip.format import LABELS, MOUTH_LABELS
from fg3dgs_jax.clip.landmarks import FACE_OVAL
from fg3dgs_jax.preprocessing.label import from_landmarks

_MIDDLE, _GREY = 128, 50  # levels: between a colour's 0 and 255; between black and (100, 100, 100)
# By whether red, green, blue are above the middle: 4, 2, 1.
_CODES = {7: "background", 1: "skin", 2: "neck", 4: "cloth", 0: "hair"}
_TABLE = np.zeros(8, np.uint8)
for _code, _name in _CODES.items():
    _TABLE[_code] = LABELS[_name]


def classes(colours: np.ndarray) -> tuple[np.ndarray, float]:
    """uint8 [H, W, 3] RGB -> labels uint8 [H, W], and the share of pixels of no known colour."""
    high = colours >= _MIDDLE
    code = 4 * high[..., 0] + 2 * high[..., 1] + high[..., 2]
    labels = _TABLE[code]
    labels[(code == 0) & (colours >= _GREY).all(-1)] = LABELS["mouth"]
    return labels, float((~np.isin(code, list(_CODES))).mean())


def labels_of(
    frame: np.ndarray, points: np.ndarray, classes: np.ndarray, teeth: np.ndarray | None = None
) -> np.ndarray:
    """Labels one frame.

    Args:
      frame: uint8 [H, W, 3] RGB.
      points: float [478, 2] px landmarks, smoothed with `over_time.smooth`.
      classes: uint8 [H, W], from the function of that name.
      teeth: bool [H, W] of their teeth mask; None: found by colour inside the mouth.
    """
    face = landmarks.polygon(points[list(FACE_OVAL)], classes.shape)
    mouth = classes == LABELS["mouth"]
    head = mouth | (classes == LABELS["skin"])
    drawn = np.where(head, np.uint8(LABELS["skin"]), classes)
    from_landmarks.name_ears(drawn, (classes == LABELS["skin"]) & ~face, points)
    from_landmarks.draw_features(drawn, frame, points)
    labels = np.where(head, drawn, classes)
    if mouth.any():  # the network's mouth is better than the outline of the landmarks
        outside = np.isin(labels, MOUTH_LABELS) & ~mouth
        lower = np.arange(len(labels))[:, None] >= (points[13, 1] + points[14, 1]) / 2
        lips = np.where(lower, np.uint8(LABELS["lower_lip"]), np.uint8(LABELS["upper_lip"]))
        labels = np.where(outside, lips, labels)
        labels[mouth] = LABELS["mouth"]
        labels[from_landmarks.teeth_mask(frame, mouth)] = LABELS["teeth"]
    if teeth is not None:
        labels[labels == LABELS["teeth"]] = LABELS["mouth"]
        labels[teeth & head & face] = LABELS["teeth"]
    return labels
