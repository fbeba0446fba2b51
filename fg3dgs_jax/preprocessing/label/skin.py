"""Skin, as distinct from hair, cloth and collar, by colour: forehead, ears and neck."""

import cv2
import numpy as np

from fg3dgs_jax.clip.landmarks import (
    CHEEKS,
    CHIN,
    FACE_SIDES,
    LEFT_BROW,
    LOBES,
    NOSE_BASE,
    RIGHT_BROW,
)

SLIVER = 0.06  # of the face's width: a part beside the face or neck that is thinner is none
GREY = 5.0  # of Lab: with less, the colour of a face does not distinguish it from a collar
COLLAR = 0.5  # of the face's colour for its light: cloth has less, skin has more


def _skin_colour(points, lab):
    """Median Lab of the face's skin, float32 [3]."""
    limit = np.array(lab.shape[1::-1]) - 1
    at = np.clip(points[list(CHEEKS)].astype(int), 0, limit)
    return np.median(lab[at[:, 1], at[:, 0]], 0)


def skin_outside_face(
    points: np.ndarray, lab: np.ndarray, head: np.ndarray, face: np.ndarray
) -> np.ndarray:
    """Mask [H, W]: forehead above the outline, and ears, which colour separates from hair."""
    outside = head & ~face
    if not outside.any():
        return outside
    skin = _skin_colour(points, lab)
    rows = np.flatnonzero(outside.any(1))
    top = outside.copy()
    top[rows[0] + max(3, int(0.06 * (points[CHIN, 1] - rows[0]))) :] = False  # the crown is hair
    hair = np.median(lab[top], 0) if top.any() else np.array([30, 128, 128], np.float32)
    scale = np.array([1.0, 2.0, 2.0], np.float32)
    to_skin = np.linalg.norm((lab - skin) * scale, axis=-1)
    to_hair = np.linalg.norm((lab - hair) * scale, axis=-1)
    closer = (outside & (to_skin < to_hair)).astype(np.uint8)
    return (cv2.medianBlur(closer, 5) > 0) & outside


def without_slivers(
    skin: np.ndarray, head: np.ndarray, face: np.ndarray, points: np.ndarray
) -> np.ndarray:
    """Mask [H, W]: skin outside the face, less highlights in the hair, plus hair-thin hair.

    Above the brows skin is forehead only where it hangs on the face. Below them a strip between the
    outline and an ear, the neck or the room that is too thin for a sideburn is skin in shadow.
    """
    brows = points[list(RIGHT_BROW + LEFT_BROW), 1].max()
    above = np.arange(len(skin))[:, None] < brows
    _, parts = cv2.connectedComponents(((skin & above) | face).astype(np.uint8))
    middle = np.clip(points[NOSE_BASE].astype(int), 0, np.array(skin.shape[::-1]) - 1)
    skin = skin & (~above | (parts == parts[middle[1], middle[0]]))
    hair = head & ~face & ~skin
    return skin | (slivers(hair, skin | face, points) & ~above)  # loose strands stay hair


def neck_mask(points: np.ndarray, lab: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Mask [H, W]: body pixels of the face's colour, under the jaw, that hang together with it."""
    skin = _skin_colour(points, lab)
    hue = np.linalg.norm(lab[..., 1:] - skin[1:], axis=-1)
    alike = body & (hue < 20) & (lab[..., 0] > 0.25 * skin[0]) & (lab[..., 0] < skin[0] * 1.3)
    tint = skin[1:] - 128
    chroma = np.linalg.norm(tint)
    if chroma > GREY:
        # A shadow takes light and colour in proportion; a white collar has light without colour.
        strength = (lab[..., 1:] - 128) @ (tint / chroma)
        alike &= strength * skin[0] > COLLAR * chroma * lab[..., 0]
    left, right = (points[k, 0] for k in LOBES)
    margin = 0.12 * abs(right - left)
    columns = np.arange(body.shape[1])
    alike &= (columns > min(left, right) - margin) & (columns < max(left, right) + margin)
    alike = cv2.morphologyEx(alike.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    alike = cv2.morphologyEx(alike, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    count, parts, stats, _ = cv2.connectedComponentsWithStats(alike)
    if count < 2:
        return np.zeros_like(body)
    neck = (parts == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])) & body
    # The neck's rim, mixed with the room's colour, is no collar: no cloth is that thin.
    return neck | slivers(body & ~neck, neck, points)


def slivers(part: np.ndarray, beside: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Mask [H, W]: where `part` is too thin to be one and lies at `beside`."""
    width = np.linalg.norm(np.diff(points[list(FACE_SIDES)], axis=0))
    side = 2 * round(SLIVER * width / 2) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    thick = cv2.morphologyEx(part.astype(np.uint8), cv2.MORPH_OPEN, kernel) > 0
    return part & ~thick & (cv2.dilate(beside.astype(np.uint8), kernel) > 0)
