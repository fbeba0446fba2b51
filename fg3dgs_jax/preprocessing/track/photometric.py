"""Sub-pixel poses by image alignment: a point of skin looks the same in every frame.

Landmarks come from a network that sees each frame alone: their errors follow the lips and the light
and differ from frame to frame. Skin that moves with the skull (forehead, nose, upper cheeks) shows
how the head moved between frames far better. Each of many points on it gets one grey level for the
whole clip, the median of what the frames show there. A frame's pose is moved until its own grey
levels agree (Lucas and Kanade). Frames are band-passed first: shading by the lamps drops out.
"""

import cv2
import numpy as np
from scipy.interpolate import LinearNDInterpolator

from fg3dgs_jax.clip.decoded import Pictures
from fg3dgs_jax.clip.landmarks import (
    FACE_OVAL,
    LEFT_BROW,
    LEFT_EYE,
    OUTER_LIPS,
    RIGHT_BROW,
    RIGHT_EYE,
)
from fg3dgs_jax.preprocessing.track import bundle_adjustment

NUM_POINTS = 1200  # about
FINE, COARSE = 1 / 512, 8 / 512  # of the picture height: standard deviations of the band-pass
OVAL_SHARE = 0.88  # of the face's oval: further out the skin turns away from the camera
EYE_MARGIN, LIPS_MARGIN, BROW_MARGIN = 0.012, 0.010, 0.004  # m: these move by themselves
GREY_NOISE = 0.5  # grey levels, the least a point is taken to vary
CORRELATED = 2.0  # neighbouring points err together: by so much is each trusted less
GAIN_RANGE = (0.7, 1.4)  # of a frame's contrast
TEMPLATE_FRAMES = 300


def skin_points(points: np.ndarray) -> np.ndarray:
    """Points [S, 3] m on the skin above the mouth, clear of lids and brows, of a face [P, 3]."""
    plane = points[:468, :2]
    oval = plane[list(FACE_OVAL)]
    oval = oval.mean(0) + OVAL_SHARE * (oval - oval.mean(0))
    low, high = oval.min(0), oval.max(0)
    spacing = np.sqrt(0.6 * (high - low).prod() / NUM_POINTS)
    axes = [np.arange(a, b, spacing) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes), -1).reshape(-1, 2)
    lips = plane[list(OUTER_LIPS)]
    keep = _inside(oval, grid, 0.0) & (grid[:, 1] < lips[:, 1].min())
    keep &= ~_inside(lips, grid, -LIPS_MARGIN)
    for eye in (LEFT_EYE, RIGHT_EYE):
        keep &= ~_inside(plane[list(eye)], grid, -EYE_MARGIN)
    for brow in (LEFT_BROW, RIGHT_BROW):
        keep &= ~_inside(plane[list(brow)], grid, -BROW_MARGIN)
    grid = grid[keep]
    return np.concatenate([grid, LinearNDInterpolator(plane, points[:468, 2])(grid)[:, None]], -1)


def image_terms(
    frames: Pictures,
    valid: np.ndarray,
    poses: np.ndarray,
    skin: np.ndarray,
    focal: float,
    centre: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Normal equations of the poses by grey levels: [T, 6, 6], [T, 6]; zero where not valid.

    Args:
      frames: uint8 [T, H, W, 3], may be decoded as they are read; read once, in order.
      valid: bool [T], frames with a face.
      poses: [T, 6], where the fit stands.
      skin: [S, 3] m, head frame.
      focal: px.
      centre: [2] px, of the picture.
    """
    looks, template, residual = _compare(frames, valid, poses, skin, focal, centre)
    known = np.flatnonzero(valid)
    blocks = np.array_split(np.arange(len(skin)), 8)  # for memory, as the chunks below
    middle = [np.median(np.abs(residual[known[:, None], some]), 0) for some in blocks]
    noise = 1.4826 * np.concatenate(middle) + GREY_NOISE
    matrices, right = np.zeros((len(poses), 6, 6)), np.zeros((len(poses), 6))
    for begin in range(0, len(poses), bundle_adjustment.CHUNK // 8):
        part = slice(begin, begin + bundle_adjustment.CHUNK // 8)
        by_pose, _ = bundle_adjustment.jacobians(poses[part], skin, focal)
        slopes = (looks[part, :, 1:] + template[:, 1:]) / 2  # of second order, as in ESM
        by_pose = np.einsum("tpi,tpia->tpa", slopes, by_pose)
        # Geman-McClure: a hand before the face or a frown counts for nothing.
        weights = 1 / (1 + (residual[part] / (2 * noise)) ** 2) ** 2 / (CORRELATED * noise) ** 2
        weights *= np.asarray(valid)[part, None]
        weighted = by_pose * weights[..., None]
        matrices[part] = weighted.swapaxes(1, 2) @ by_pose
        right[part] = (weighted.swapaxes(1, 2) @ residual[part, :, None])[..., 0]
    return matrices, right


def deviation(
    frames: Pictures,
    valid: np.ndarray,
    poses: np.ndarray,
    skin: np.ndarray,
    focal: float,
    centre: np.ndarray,
) -> float:
    """Median deviation of grey levels from the clip's own, as a share of their mean size."""
    _, template, residual = _compare(frames, valid, poses, skin, focal, centre)
    return float(np.median(np.abs(residual[valid])) / np.abs(template[:, 0]).mean())


def _compare(frames, valid, poses, skin, focal, centre):
    """What frames show at the points.

    Returns:
      Grey level and slopes [T, S, 3], their median [S, 3], and how far each grey level is from the
      median [T, S].
    """
    looks = np.zeros((len(poses), len(skin), 3), np.float32)
    for i in np.flatnonzero(valid):
        shown = bundle_adjustment.project(poses[i : i + 1], skin, focal, centre)[0]
        looks[i] = _look(frames[i], shown)
    known = np.flatnonzero(valid)
    template = np.median(looks[known[:: max(1, len(known) // TEMPLATE_FRAMES)]], 0)
    gain = (looks[..., 0] @ template[:, 0]) / max((template[:, 0] ** 2).sum(), 1e-6)
    return looks, template, template[:, 0] - looks[..., 0] / np.clip(gain, *GAIN_RANGE)[:, None]


def _look(frame, pixels):
    """Band-passed grey level of a frame at pixels [S, 2], and its slopes: float32 [S, 3]."""
    height = frame.shape[0]
    margin = int(3 * COARSE * height) + 2
    low = np.clip(np.floor(pixels.min(0)).astype(int) - margin, 0, None)
    high = np.maximum(np.ceil(pixels.max(0)).astype(int) + margin, low + 8)
    crop = np.ascontiguousarray(frame[low[1] : high[1], low[0] : high[0]])
    if min(crop.shape[:2]) < 2:  # a pose outside the picture
        return np.zeros((len(pixels), 3), np.float32)
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)
    fine = cv2.GaussianBlur(grey, (0, 0), max(FINE * height, 0.5))
    side = 2 * round(COARSE * height * np.sqrt(3) / np.sqrt(2)) + 1  # two boxes for a Gaussian
    fine -= cv2.blur(cv2.blur(grey, (side, side)), (side, side))
    at = (pixels - low - 0.5).astype(np.float32)[None]

    def read(dx, dy):
        shifted = at + np.array([dx, dy], np.float32)
        return cv2.remap(fine, shifted, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]

    return np.stack([read(0, 0), read(0.5, 0) - read(-0.5, 0), read(0, 0.5) - read(0, -0.5)], -1)


def _inside(polygon, points, margin):
    """Mask of points [N, 2] farther than `margin` inside a polygon's convex hull."""
    hull = cv2.convexHull(np.ascontiguousarray(polygon, np.float32))
    far = [cv2.pointPolygonTest(hull, (float(x), float(y)), True) for x, y in points]
    return np.array(far) > margin
