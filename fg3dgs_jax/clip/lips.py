"""How lips move, in the head's own frame: what two faces that say the same have in common.

Lengths are in distances between the outer corners of the eyes, so that near and far faces compare.
"""

from typing import NamedTuple

import numpy as np

from fg3dgs_jax.clip.landmarks import CHIN, EYE_CORNERS, INNER_LIPS, LIP_MIDDLES, OUTER_LIPS

POINTS = (*OUTER_LIPS, *INNER_LIPS, 148, CHIN, 377)  # of MediaPipe's 478: both lips and the chin
CURVES = ("opening", "width", "protrusion")
_CORNERS = (61, 291)  # of the mouth
STEADY = (168, 6, 197, 33, 133, 362, 263)  # bridge of the nose, corners of the eyes


class LipCurves(NamedTuple):
    """How far the lips are open, wide and forward, frame by frame."""

    opening: np.ndarray  # [T], between the middles of the inner lips
    width: np.ndarray  # [T], between the corners of the mouth
    protrusion: np.ndarray  # [T], of the lips' middles before the bridge of the nose


def in_head_frame(pixels: np.ndarray, depth: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Landmarks without the head's turn, place and size.

    Args:
      pixels: [T, 478, 2] px.
      depth: [T, 478], in px like x.
      rotation: [T, 3, 3], head to camera.

    Returns:
      float32 [T, 478, 3] in eye distances: x to image right, y down, z away from the viewer.
      Rows without a face, whose landmarks are all 0, stay 0.
    """
    points = np.concatenate([pixels, depth[..., None]], -1).astype(np.float32)
    turned = np.einsum("tpi,tij->tpj", points, rotation.astype(np.float32))
    turned = turned - turned[:, STEADY].mean(1, keepdims=True)
    right, left = EYE_CORNERS
    distance = np.linalg.norm(turned[:, left] - turned[:, right], axis=-1)
    return turned / np.maximum(distance, 1e-6)[:, None, None]


def lip_curves(points: np.ndarray) -> LipCurves:
    """The three curves of landmarks in the head's frame, [T, 478, 3]."""
    upper, lower = LIP_MIDDLES
    right, left = _CORNERS
    return LipCurves(
        opening=np.linalg.norm(points[:, lower] - points[:, upper], axis=-1),
        width=np.linalg.norm(points[:, left] - points[:, right], axis=-1),
        protrusion=-points[:, (0, 17, *LIP_MIDDLES), 2].mean(1),
    )
