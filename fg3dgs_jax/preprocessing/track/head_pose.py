"""Head pose by one fit over the whole clip: one rigid head, one focal length, smooth motion.

The head frame has OpenCV-like axes (x right in the picture, y down, z away from the viewer at
frontal pose), metres, origin inside the head. Only landmarks on bone count for the pose: lips, jaw,
lids and brows move by themselves. All unknowns are solved together (`bundle_adjustment`); where the
pictures are given, skin then aligns the poses to a fraction of a pixel (`photometric`). The focal
length is held close to a portrait lens: with the small turns of a speaker it trades against depth,
and what the landmarks alone give for it is mostly their own bias.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from fg3dgs_jax.clip.decoded import Pictures
from fg3dgs_jax.preprocessing.track import bundle_adjustment, photometric
from fg3dgs_jax.preprocessing.track.bundle_adjustment import (
    Scales,
    Unknowns,
    project,
    rotation_matrices,
    rotation_vectors,
)

# Forehead, glabella, nose bridge, eye corners, temples, cheekbones (MediaPipe indices).
RIGID = np.array(
    (
        "10 109 338 67 297 103 332 54 284 151 108 337 9 8 168 "
        "6 197 195 122 351 196 419 33 133 362 263 127 356 162 389 "
        "21 251 34 264 227 447 116 345 117 346 118 347 143 372"
    ).split(),
    int,
)
OUTER_EYE_CORNERS = (33, 263)
EYE_DISTANCE = 0.09  # m between the outer eye corners: what sets the metric scale
FOCAL_PER_HEIGHT = 2.4  # a portrait lens
DISTANCE_RANGE = (0.6, 1.3)  # m
HEAD_DEPTH = 0.06  # m from the midpoint of the outer eye corners back to the origin
LANDMARK_SIGMA = 4e-3  # of the picture height; wide, because neighbours err together
ROTATION_SIGMA, TRANSLATION_SIGMA = 2.5e-3, 3.5e-4  # usual third differences of a head's pose
SHAPE_SIGMA, FOCAL_SIGMA = 4e-3, 0.03  # m and relative, of the first guess
GAP_SIGMAS = np.repeat([0.1, 0.02], 3)  # rad, m: how far a frame without a face strays
ROUNDS, IMAGE_ROUNDS = 8, 4
MIN_SKIN = 100  # points
MADE_BY = "bundle adjustment, skin alignment 1"  # another text where the result changes


class Sighting(NamedTuple):
    """What was seen of one head in T frames."""

    pixels: np.ndarray  # [T, P, 2] px, landmarks
    depth: np.ndarray  # [T, P], their relative depth in px (smaller is nearer), for the first shape
    rotation: np.ndarray  # [T, 3, 3], rough, head to camera, OpenCV axes, for the first poses
    valid: np.ndarray  # bool [T], frames with a face
    size: tuple[int, int]  # (height, width) px of the pictures


class HeadTrack(NamedTuple):
    """Poses of T frames."""

    world_to_camera: np.ndarray  # float32 [T, 4, 4], OpenCV axes, metres
    focal: float  # px
    valid: np.ndarray  # bool [T]: False where the pose is interpolated
    error: np.ndarray  # float32 [T] px, RMS over the rigid landmarks; 0 if not valid
    points: np.ndarray  # float32 [P, 3] m, the person's mean face in the head frame


class _Terms(NamedTuple):
    """What stays the same while the fit goes on."""

    pixels: np.ndarray  # float64 [T, R, 2] px, the rigid landmarks
    valid: np.ndarray  # bool [T]
    centre: np.ndarray  # [2] px, of the picture
    scales: Scales
    gaps: tuple[np.ndarray, np.ndarray]  # from `_gap_terms`


def fit_head(
    sighting: Sighting,
    focal: float | None = None,
    rigid: np.ndarray = RIGID,
    frames: Pictures | None = None,
    cuts: Sequence[int] = (),
    progress: Callable[[Iterable], Iterable] = iter,
) -> HeadTrack:
    """Fits shape, focal length and every pose together.

    Args:
      sighting: landmarks and rough rotations.
      focal: px; None assumes a portrait lens that puts the head 0.6-1.3 m away, and fits it.
      rigid: which of the P points move with the skull.
      frames: uint8 [T, H, W, 3] for the alignment of skin (needs MediaPipe's 478 points), or None.
      cuts: the frames that begin another scene, over which no motion is smoothed.
      progress: wraps the range of the alignment's rounds, each of which reads all frames.

    Raises:
      ValueError: fewer than two frames have a face.
    """
    valid = np.asarray(sighting.valid, bool)
    if valid.sum() < 2:
        raise ValueError(
            f"a face was found in {valid.sum()} of {len(valid)} frames; expected it in most of "
            "them: use a clip that shows one face from the front"
        )
    height, width = sighting.size
    centre = np.array([width, height]) / 2
    pixels = np.asarray(sighting.pixels[:, rigid], np.float64)
    scale = _scales(sighting.pixels, sighting.depth)
    near, far = (d * np.median(scale[valid]) for d in DISTANCE_RANGE)
    lens = np.clip(FOCAL_PER_HEIGHT * height, near, far) if focal is None else focal
    shape, poses = _first_guess(sighting, valid, scale, lens, centre)
    scales = Scales(
        landmark=LANDMARK_SIGMA * height,
        rotation=ROTATION_SIGMA,
        translation=TRANSLATION_SIGMA,
        shape=SHAPE_SIGMA,
        focal=FOCAL_SIGMA if focal is None else 1e-6,
        cuts=tuple(cuts),
    )
    terms = _Terms(pixels, valid, centre, scales, _gap_terms(poses, valid))
    start = now = Unknowns(poses, shape[rigid], float(lens))
    weights = np.ones((len(pixels), len(rigid))) * valid[:, None]
    for _ in range(ROUNDS):
        gaps = terms.gaps[0], _gap_right(terms.gaps, now.poses)
        now = bundle_adjustment.step(now, start, pixels, weights, centre, scales, gaps)
        weights = valid[:, None] * _steadiness(now, pixels, valid, centre)
    shape = bundle_adjustment.solve_points(
        now, shape, sighting.pixels, valid, centre, scales.landmark, scales.shape
    )
    shape[rigid] = now.points
    if frames is not None:
        now = _align(now, terms, weights, shape, frames, progress)
    residual = project(now.poses, shape[rigid], now.focal, centre) - pixels
    error = np.sqrt((residual**2).sum(-1).mean(-1)) * valid
    matrices = np.tile(np.eye(4), (len(poses), 1, 1))
    matrices[:, :3, :3] = rotation_matrices(now.poses[:, :3])
    matrices[:, :3, 3] = now.poses[:, 3:]
    return HeadTrack(
        world_to_camera=matrices.astype(np.float32),
        focal=now.focal,
        valid=valid,
        error=error.astype(np.float32),
        points=shape.astype(np.float32),
    )


def jitter(world_to_camera: np.ndarray) -> tuple[float, float]:
    """Standard deviations of second differences: (degrees, millimetres) a frame^2."""
    vectors = rotation_vectors(np.asarray(world_to_camera, np.float64)[:, :3, :3])
    moves = np.asarray(world_to_camera, np.float64)[:, :3, 3]
    return (
        float(np.degrees(np.diff(vectors, 2, axis=0)).std()),
        float(1e3 * np.diff(moves, 2, axis=0).std()),
    )


def frame_by_frame(
    poses: np.ndarray,
    points: np.ndarray,
    pixels: np.ndarray,
    valid: np.ndarray,
    focal: float,
    centre: np.ndarray,
    rounds: int = 8,
) -> np.ndarray:
    """Each valid frame's pose [T, 6] by its own landmarks alone: what the fit is measured against.

    Args:
      poses: [T, 6] to start from; kept where not valid.
      points: [P, 3] m, the rigid landmarks.
      pixels: [T, P, 2] px, the same.
      valid: bool [T], frames with a face.
      focal: px.
      centre: [2] px, of the picture.
      rounds: of Gauss and Newton's method.
    """
    poses, valid = np.array(poses, np.float64), np.asarray(valid, bool)
    sigma = LANDMARK_SIGMA * 2 * centre[1]
    weights = np.ones(pixels[valid].shape[:2])
    for _ in range(rounds):
        now = Unknowns(poses[valid], points, focal)
        blocks, right = bundle_adjustment.pose_terms(now, pixels[valid], weights, centre, sigma)
        poses[valid] += np.linalg.solve(blocks, right[..., None])[..., 0]
    return poses


def _align(now, terms, weights, shape, frames, progress):
    """Poses by skin and landmarks together, shape and focal length held."""
    skin = photometric.skin_points(shape)
    if len(skin) < MIN_SKIN:  # a face unlike any: landmarks alone, which stand by themselves
        return now
    _, valid, centre, scales, gaps = terms
    for _ in progress(range(IMAGE_ROUNDS)):
        blocks, right = bundle_adjustment.pose_terms(
            now, terms.pixels, weights, centre, scales.landmark
        )
        by_image = photometric.image_terms(frames, valid, now.poses, skin, now.focal, centre)
        right += _gap_right(gaps, now.poses) + by_image[1]
        blocks += gaps[0] + by_image[0]
        now = now._replace(poses=bundle_adjustment.pose_step(now.poses, blocks, right, scales))
    return now


def _steadiness(now, pixels, valid, centre):
    """Weights [P] of landmarks: less where the fit misses one more than the median landmark.

    What is bone on most faces is not on all: brows that reach high, cheeks that smiles lift.
    """
    off = np.linalg.norm(pixels - project(now.poses, now.points, now.focal, centre), axis=-1)
    off = np.sqrt((off[valid] ** 2).mean(0))
    return np.minimum(1.0, np.median(off) / np.maximum(off, 1e-9)) ** 2


def _gap_terms(poses, valid):
    """Ties frames without a face loosely to the interpolated first guess: blocks and block x pose.

    Without it the temporal prior would go on at the last speed to the end of a long gap.
    """
    blocks = np.eye(6) / GAP_SIGMAS**2 * ~valid[:, None, None]
    return blocks, np.einsum("tab,tb->ta", blocks, poses)


def _gap_right(gaps, poses):
    """The right side [T, 6] of the ties where the poses stand."""
    return gaps[1] - np.einsum("tab,tb->ta", gaps[0], poses)


def _scales(pixels, depth):
    """Pixels a metre [T] at the eyes."""
    eyes = list(OUTER_EYE_CORNERS)
    a, b = np.concatenate([pixels[:, eyes], depth[:, eyes, None]], -1, dtype=np.float64).swapaxes(
        0, 1
    )
    return np.maximum(np.linalg.norm(a - b, axis=-1) / EYE_DISTANCE, 1e-6)


def _first_guess(sighting, valid, scale, focal, centre):
    """The median face in the head frame [P, 3] m, and poses [T, 6] bridged over gaps."""
    pixels, depth = sighting.pixels, sighting.depth
    rotation = np.asarray(sighting.rotation, np.float64)
    a, b = OUTER_EYE_CORNERS
    middle = np.mean(depth[:, (a, b)], 1, np.float64, keepdims=True)

    def camera(some):
        """Points [T, P', 3] m before the camera."""
        z = (focal + depth[:, some] - middle) / scale[:, None]
        return np.concatenate([(pixels[:, some] - centre) / focal * z[..., None], z[..., None]], -1)

    eyes = camera((a, b)).mean(1)
    shape = np.concatenate(
        [
            np.median(np.einsum("tij,tpi->tpj", rotation, camera(some) - eyes[:, None])[valid], 0)
            for some in np.array_split(np.arange(pixels.shape[1]), 16)  # for memory
        ]
    )
    shape -= (shape[a] + shape[b]) / 2
    shape *= EYE_DISTANCE / np.linalg.norm(shape[a] - shape[b])
    # From between the eyes to the middle of the head: back towards the ears and a little up.
    origin = np.array([0.0, -0.005, HEAD_DEPTH])
    moves = eyes + rotation @ origin
    poses = np.concatenate([rotation_vectors(rotation), moves], -1)
    times = np.arange(len(poses))
    bridged = [np.interp(times, times[valid], poses[valid, k]) for k in range(6)]
    return shape - origin, np.stack(bridged, -1)
