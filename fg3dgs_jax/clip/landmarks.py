"""Which landmarks (MediaPipe's 478) draw which part of a face."""

import cv2
import numpy as np

RIGHT_BROW = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46)
LEFT_BROW = (300, 293, 334, 296, 336, 285, 295, 282, 283, 276)
NOSE = (168, 193, 245, 188, 174, 217, 198, 49, 48, 64, 98, 97, 2, 326, 327, 294, 278, 279, 420, 437,
        399, 412, 465, 417)  # fmt: skip
UPPER_LIP = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 308, 415, 310, 311, 312, 13, 82, 81,
             80, 191, 78)  # fmt: skip
LOWER_LIP = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 308, 324, 318, 402, 317, 14, 87,
             178, 88, 95, 78)  # fmt: skip
FOREHEAD_TOP, CHIN, NOSE_BRIDGE, NOSE_BASE = 10, 152, 168, 2
FACE_SIDES = (234, 454)  # the outline beside the ears
LOBES = (132, 361)  # the outline beside the ear lobes
JAW_ANGLES = (58, 288)
CHEEKS = (50, 101, 118, 205, 280, 330, 347, 425, 151, 9)  # where skin is certainly seen


def polygon(points, shape):
    """bool [H, W]: the inside of an outline [P, 2] px; drawn with 1/16 px steps."""
    mask = np.zeros(shape, np.uint8)
    # A pixel's centre is at + 0.5 in our px, at + 0 in OpenCV's.
    corners = np.rint((np.asarray(points, np.float64) - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(mask, [corners], 1, shift=4)
    return mask.astype(bool)
