"""A face's box as a detector would draw it, from the landmarks of the face mesh."""

import numpy as np

from fg3dgs_jax.clip.landmarks import FACE_OVAL

FOREHEAD = 0.135  # of the face oval's height, from its top to the hairline


def mesh_boxes(landmarks: np.ndarray) -> np.ndarray:
    """Face-mesh landmarks [T, 478, 2] px -> boxes [T, 4] in the place of S3FD's.

    S3FD learned from WIDER FACE, whose boxes are drawn tightly around forehead, chin and cheeks.
    The face oval of the mesh goes through chin and cheeks, but through the middle of the forehead.
    So the box is the oval's, with `FOREHEAD` of its height added above: another detector that
    learned from the same boxes (MTCNN) puts its upper edge there (0.125 to 0.145, three talking
    heads, 39 frames), and the other three within 0.025 of the oval's.
    """
    oval = np.asarray(landmarks, np.float64)[:, FACE_OVAL]
    low, high = oval.min(1), oval.max(1)
    low[:, 1] -= FOREHEAD * (high[:, 1] - low[:, 1])
    return np.concatenate([low, high], 1)
