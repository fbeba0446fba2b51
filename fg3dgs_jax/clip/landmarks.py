"""Which landmarks (MediaPipe's 478) draw which part of a face."""

import cv2
import numpy as np

# Outlines, as numbers of landmarks. Left and right are the person's own: right is image left.
# Lips begin at the right corner, go along the upper edge to the left one, and back below.
OUTER_LIPS = (
    *(61, 185, 40, 39, 37, 0, 267, 269, 270, 409),
    *(291, 375, 321, 405, 314, 17, 84, 181, 91, 146),
)
INNER_LIPS = (
    *(78, 191, 80, 81, 82, 13, 312, 311, 310, 415),
    *(308, 324, 318, 402, 317, 14, 87, 178, 88, 95),
)
# Each lip by itself: its outer edge from the right corner to the left one, its inner edge back.
UPPER_LIP = (*OUTER_LIPS[:11], *INNER_LIPS[10::-1])
LOWER_LIP = (OUTER_LIPS[0], *OUTER_LIPS[:9:-1], *INNER_LIPS[10:], INNER_LIPS[0])
# Points 48 to 67 of the 68-point scheme: 12 of the outer edge, 8 of the inner one.
LIPS_20 = (61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91, 78, 81, 13, 311, 308, 402, 14, 178)
LIP_MIDDLES = (13, 14)  # of the inner edges, upper and lower: the mouth's opening
RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
EYE_CORNERS = (33, 263)  # the outer ones
# The upper line from the temple in, the lower line back out.
RIGHT_BROW = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46)
LEFT_BROW = (300, 293, 334, 296, 336, 285, 295, 282, 283, 276)
# From the top, down the left side to the chin, and up the right one.
FACE_OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
# From the bridge down the right side to the base, and up the left one.
NOSE = (
    *(168, 193, 245, 188, 174, 217, 198, 49, 48, 64, 98, 97),
    *(2, 326, 327, 294, 278, 279, 420, 437, 399, 412, 465, 417),
)
FOREHEAD_TOP, CHIN, NOSE_BRIDGE, NOSE_BASE = 10, 152, 168, 2
FACE_SIDES = (234, 454)  # the outline beside the ears
LOBES = (132, 361)  # the outline beside the ear lobes
JAW_ANGLES = (58, 288)
CHEEKS = (50, 101, 118, 205, 280, 330, 347, 425, 151, 9)  # where skin is certainly seen
# Points that speech and blinks move; the last three are the chin.
GUIDES = (*OUTER_LIPS, *INNER_LIPS, *RIGHT_EYE, *LEFT_EYE, 148, 152, 377)


def polygon(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The inside of an outline.

    Args:
      points: [P, 2] px.
      shape: (H, W) px.

    Returns:
      bool [H, W]; the outline is drawn with steps of 1/16 px.
    """
    mask = np.zeros(shape, np.uint8)
    # A pixel's centre is at + 0.5 in our px, at + 0 in OpenCV's.
    corners = np.rint((np.asarray(points, np.float64) - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(mask, [corners], 1, shift=4)
    return mask.astype(bool)


def boxes_around(points: np.ndarray, height: int, width: int, margin: float) -> np.ndarray:
    """Boxes around points, never empty and inside the picture.

    Args:
      points: [T, P, 2] (x, y) px.
      height: of the picture, px.
      width: of the picture, px.
      margin: on each side, of the longer side of the points' own box.

    Returns:
      int32 [T, 4] (row0, row1, col0, col1), half open.
    """
    low, high = points.min(1), points.max(1)
    pad = margin * (high - low).max(-1, keepdims=True)
    low, high = np.floor(low - pad), np.ceil(high + pad) + 1
    limit = np.array([width, height])
    low = np.clip(low, 0, limit - 1)
    high = np.clip(high, low + 1, limit)
    return np.stack([low[:, 1], high[:, 1], low[:, 0], high[:, 0]], -1).astype(np.int32)
