"""Labels of every pixel from landmark outlines and a person mask; no parsing network.

`preprocessing/label/from_networks.py` does the same from a parsing network's classes.

The face is drawn from the landmarks. What else of the person lies above the ear lobes and close to
the face is head too: hair, forehead or ears by colour. What lies below is neck where it has the
face's hue and hangs on the chin, else cloth.
"""

from typing import NamedTuple

import cv2
import numpy as np

from fg3dgs_jax.clip.format import HEAD_LABELS, LABELS
from fg3dgs_jax.clip.landmarks import (
    CHIN,
    FACE_OVAL,
    FACE_SIDES,
    FOREHEAD_TOP,
    INNER_LIPS,
    JAW_ANGLES,
    LEFT_BROW,
    LEFT_EYE,
    LOBES,
    LOWER_LIP,
    NOSE,
    NOSE_BASE,
    NOSE_BRIDGE,
    RIGHT_BROW,
    RIGHT_EYE,
    UPPER_LIP,
    polygon,
)
from fg3dgs_jax.preprocessing.label import skin as skin_lib

SIDE_REACH = 0.32  # of the face's width: how far from the outline ears and hair may lie
CRUMB = 0.003  # of the picture: smaller separate pieces of body beside the head are head
JAW_EDGE = 0.015  # of the face's height: how far outside the outline the chin still shows
MIN_OPENING = 1.0  # px between the inner lips below which the mouth is shut


class Parsed(NamedTuple):
    """One frame."""

    labels: np.ndarray  # uint8 [H, W]
    alpha: np.ndarray  # float32 [H, W], how much of a pixel is the person


def refine_alpha(
    confidence: np.ndarray, frame: np.ndarray, radius: int = 3, eps: float = 2e-4
) -> np.ndarray:
    """Guided filter: the segmenter's edge [H, W] moves onto the picture's edge."""
    guide = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255

    def mean(x):
        return cv2.blur(x, (2 * radius + 1,) * 2)

    m, c = mean(guide), mean(confidence)
    gain = (mean(guide * confidence) - m * c) / (mean(guide * guide) - m * m + eps)
    smooth = mean(gain) * guide + mean(c - gain * m)
    return np.clip((smooth - 0.1) / 0.8, 0, 1).astype(np.float32)


def parse(frame: np.ndarray, points: np.ndarray, confidence: np.ndarray) -> Parsed:
    """Labels one frame.

    Args:
      frame: uint8 [H, W, 3] RGB.
      points: float [478, 2] px, smoothed with `over_time.smooth`.
      confidence: float32 [H, W] in [0, 1], the segmenter's person.
    """
    shape = frame.shape[:2]
    face = polygon(points[list(FACE_OVAL)], shape)
    person, alpha = person_and_alpha(frame, confidence, face)
    head = head_region(points, person, face)
    head = person & ~_without_crumbs(person & ~head, CRUMB * alpha.size)
    head |= skin_lib.slivers(person & ~head, head, points)  # the jaw's shadow is no cloth
    labels = np.zeros(shape, np.uint8)
    labels[person] = LABELS["cloth"]
    lab = cv2.cvtColor(cv2.GaussianBlur(frame, (5, 5), 1.2), cv2.COLOR_RGB2LAB).astype(np.float32)
    labels[skin_lib.neck_mask(points, lab, person & ~head)] = LABELS["neck"]
    labels[head] = LABELS["hair"]
    bare = skin_lib.skin_outside_face(points, lab, head, face)
    bare = skin_lib.without_slivers(bare, head, face, points)
    labels[bare] = LABELS["skin"]
    name_ears(labels, bare & ~face, points)
    labels[face | under_chin(face, labels, points)] = LABELS["skin"]
    draw_features(labels, frame, points)
    return Parsed(labels, alpha)


def under_chin(face: np.ndarray, labels: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Mask [H, W]: the strip of neck at the jaw that still shows the chin's edge.

    The outline runs a little inside the jaw. What it leaves to the neck would stay behind as a
    bright line when another sound lifts the jaw.
    """
    reach = JAW_EDGE * np.linalg.norm(points[CHIN] - points[FOREHEAD_TOP])
    side = 2 * max(1, round(float(reach))) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    edge = cv2.dilate(face.astype(np.uint8), kernel) > 0
    below = np.arange(len(face))[:, None] > points[NOSE_BASE, 1]
    return edge & below & (labels == LABELS["neck"])


def person_and_alpha(
    frame: np.ndarray, confidence: np.ndarray, face: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The person as one piece: bool [H, W], and how much of each pixel it is, float32 [H, W].

    Args:
      frame: uint8 [H, W, 3] RGB.
      confidence: float32 [H, W] in [0, 1], how sure some network is of the person.
      face: bool [H, W], the person for certain.
    """
    alpha = refine_alpha(_fill_holes(confidence), frame)
    person = _largest_part((alpha > 0.5) | face)
    near = cv2.dilate(person.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    return person, np.where(face, 1.0, alpha * near).astype(np.float32)


def name_ears(labels: np.ndarray, skin: np.ndarray, points: np.ndarray) -> None:
    """Skin [H, W] beside the face and below the bridge of the nose becomes an ear in `labels`."""
    rows, columns = np.arange(skin.shape[0])[:, None], np.arange(skin.shape[1])[None]
    for name, side, sign in (("right_ear", 0, -1), ("left_ear", 1, 1)):
        beside = sign * (columns - points[FACE_SIDES[side], 0]) > -2
        labels[skin & beside & (rows > points[NOSE_BRIDGE, 1])] = LABELS[name]


def head_mask(labels: np.ndarray) -> np.ndarray:
    """Mask [..., H, W]: everything but neck, clothes and background."""
    return np.isin(labels, HEAD_LABELS)


def teeth_mask(frame: np.ndarray, interior: np.ndarray) -> np.ndarray:
    """Mask [H, W]: pixels of the mouth's inside that are bright and nearly grey."""
    if interior.sum() < 8:
        return np.zeros_like(interior)
    hsv = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)
    bright = np.maximum(np.percentile(hsv[..., 2][interior], 60), 95)
    return interior & (hsv[..., 2] >= bright) & (hsv[..., 1] < 110)


def draw_features(labels: np.ndarray, frame: np.ndarray, points: np.ndarray) -> None:
    """Nose, brows, eyes, lips, the mouth's inside and teeth, from outlines onto `labels` [H, W]."""
    shape = labels.shape
    outlines = {
        "nose": NOSE,
        "right_brow": RIGHT_BROW,
        "left_brow": LEFT_BROW,
        "right_eye": RIGHT_EYE,
        "left_eye": LEFT_EYE,
        "upper_lip": UPPER_LIP,
        "lower_lip": LOWER_LIP,
    }
    for name, index in outlines.items():
        labels[polygon(points[list(index)], shape)] = LABELS[name]
    if np.linalg.norm(points[14] - points[13]) > MIN_OPENING:
        interior = polygon(points[list(INNER_LIPS)], shape)
        labels[interior] = LABELS["mouth"]
        labels[teeth_mask(frame, interior)] = LABELS["teeth"]


def _largest_part(mask):
    """Mask [H, W]: the biggest part that hangs together."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    return mask if count < 2 else parts == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])


def _without_crumbs(mask, area):
    """Mask [H, W]: only the parts of at least `area` px."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    big = stats[:, cv2.CC_STAT_AREA] >= area
    big[0] = False
    return big[parts]


def _fill_holes(confidence):
    """Background inside the person that does not touch the picture's border is the person.

    Only small pieces of it: `scipy.ndimage.binary_fill_holes` has no such bound.
    """
    background = (confidence < 0.5).astype(np.uint8)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(background, connectivity=4)
    height, width = confidence.shape
    out = confidence.copy()
    for k in range(1, count):
        x, y, w, h, area = stats[k]
        inside = x > 0 and y > 0 and x + w < width and y + h < height
        if inside and area < 0.005 * height * width:
            hole = cv2.dilate((parts == k).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
            out[hole] = 1.0
    return out


def head_region(points: np.ndarray, person: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Mask [H, W]: the face, and the person around it above a line under the ears, in one piece."""
    height, width = person.shape
    rows, columns = np.mgrid[:height, :width] + 0.5
    down = points[CHIN] - points[FOREHEAD_TOP]
    down = down / np.linalg.norm(down)
    right = np.array([-down[1], down[0]])
    right = right * np.sign(right @ (points[FACE_SIDES[1]] - points[FACE_SIDES[0]]))
    lobes = points[list(LOBES)]
    along = columns * down[0] + rows * down[1]
    across = columns * right[0] + rows * right[1]
    sides = points[list(FACE_SIDES)] @ right
    wide = sides[1] - sides[0]
    # Left and right lobe heights differ when the head turns: the limit runs straight between them.
    t = np.clip((across - sides[0]) / wide, 0, 1)
    limit = (lobes[0] @ down) * (1 - t) + (lobes[1] @ down) * t
    near = (across > sides[0] - SIDE_REACH * wide) & (across < sides[1] + SIDE_REACH * wide)
    around = person & near & (along < limit)
    # An ear lobe may hang lower: person with background below it, where a neck never is.
    below = np.cumsum(~person[::-1], 0)[::-1] > 0
    jaw = (points[list(JAW_ANGLES)] @ down).mean()
    around |= person & near & below & (along < jaw)
    head = cv2.morphologyEx(
        (around | face).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)
    )
    _, parts = cv2.connectedComponents(head)
    middle = np.clip(points[NOSE_BASE].astype(int), 0, [width - 1, height - 1])
    return (parts == parts[middle[1], middle[0]]) & (head > 0) | face
