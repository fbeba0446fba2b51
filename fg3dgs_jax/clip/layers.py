"""The torso's layer over the plate: B of eq. (14)."""

import cv2
import numpy as np


def over(layer: np.ndarray, plate: np.ndarray) -> np.ndarray:
    """Lays a picture with straight alpha over another.

    Args:
      layer: uint8 [H, W, 4].
      plate: uint8 [H, W, 3].

    Returns:
      uint8 [H, W, 3], rounded to the nearest.
    """
    alpha = np.ascontiguousarray(layer[..., 3])
    out = plate.copy()
    colours = cv2.cvtColor(np.ascontiguousarray(layer), cv2.COLOR_RGBA2RGB)
    cv2.copyTo(colours, cv2.inRange(alpha, 255, 255), out)
    edge = cv2.inRange(alpha, 1, 254) > 0  # few: the rest needs no arithmetic
    share = alpha[edge, None].astype(np.float32) / 255
    out[edge] = np.rint(layer[edge, :3] * share + plate[edge].astype(np.float32) * (1 - share))
    return out
