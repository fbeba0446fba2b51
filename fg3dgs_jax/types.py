"""The pytrees that pass between modules; shapes on every field, nothing that computes.

Letters: N Gaussians (a fixed capacity), K = (degree + 1)^2 SH bases, B frames, T frames of a clip,
H rows, W columns, E expression channels, A x D one audio feature window. Leading batch dimensions
are written `...`. World units are metres, the head is centred at the origin; camera axes are
OpenCV's (x right, y down, z forward).
"""

from typing import Any, NamedTuple

import jax
from flax import struct

Array = jax.Array

# Keys of every per-region dict; the layers of eq. (14), front to back: face first.
REGIONS = ("face", "eyes", "mouth")


class Camera(NamedTuple):
    """A pinhole camera; batchable, differentiable in `world_to_camera`.

    Pixel j's centre is at j + 0.5.
    """

    world_to_camera: Array  # [..., 4, 4]
    fx: Array  # [...] px
    fy: Array  # [...] px
    cx: Array  # [...] px
    cy: Array  # [...] px


class Gaussians(struct.PyTreeNode):
    """One region's static Gaussians as they are stored (eq. 2).

    `activate` in `models/motion.py` makes them drawable.
    """

    means: Array  # [N, 3] metres
    quats: Array  # [N, 4] wxyz, normalised where used
    raw_scales: Array  # [N, 3]; scales = softplus(raw_scales), metres
    logit_opacities: Array  # [N]; opacities = sigmoid(logit_opacities)
    sh: Array  # [N, K, 3], band 0 first; colour = SH(view direction) + 0.5, clamped below at 0


class GaussianDeltas(struct.PyTreeNode):
    """Predicted motion of one region (eqs. 8, 12); a field that does not move is None."""

    means: Array  # [N, 3] metres
    quats: Array | None = None  # [N, 4], added before normalisation
    raw_scales: Array | None = None  # [N, 3], added before softplus


class Gates(struct.PyTreeNode):
    """How strongly each Gaussian listens to each condition.

    Norms of s_a, s_e in eq. (6); lambda in eq. (10).
    """

    audio: Array  # [N]
    expression: Array  # [N]


class Conditions(NamedTuple):
    """What drives one frame."""

    audio: Array  # [..., 8, A, D]: feature windows of frames i-4 .. i+3, zeros outside the clip
    expression: Array  # [..., E]; the last channel is AU45 (blink)
    lips: Array | None = None  # [..., 3 P]: how far the face has moved points of the lips, cm


class Batch(NamedTuple):
    """One frame (or B frames) of truth with what drives it."""

    # tuple's own method of that name is not used.
    index: Array  # pyright: ignore[reportIncompatibleMethodOverride]  # [...] int32, frame number
    conditions: Conditions
    camera: Camera
    image: Any  # [..., H, W, 3] in [0, 1]; None where no picture was asked for, as the next two
    labels: Any  # [..., H, W] uint8, see clip/processed.py
    background: Any  # [..., H, W, 3] in [0, 1]: torso over plate
    lips_box: Array  # [..., 4] int32: row0, row1, col0, col1 (half open, inside the image)
    eyes_box: Array  # [..., 2, 4] int32: one box an eye
    guides: Array  # [..., P, 3] metres: lips, lids and chin where they are on average
    guide_pixels: Array  # [..., P, 2] px: where the frame shows them
