"""Head pose by one fit over the whole clip: one rigid head, one focal length, smooth motion.

The head frame has OpenCV-like axes (x right in the picture, y down, z away from the viewer at
frontal pose), metres, origin inside the head. Only landmarks on bone count for the pose: lips, jaw,
lids and brows move by themselves. The focal length is not fitted freely: with the small turns of a
speaker it trades against depth, so a portrait lens is assumed and stability is kept instead.
"""

from typing import NamedTuple

import numpy as np

# Forehead, glabella, nose bridge, eye corners, temples, cheekbones (MediaPipe indices).
RIGID = np.array(
    [10, 109, 338, 67, 297, 103, 332, 54, 284, 151, 108, 337, 9, 8, 168, 6, 197, 195, 122, 351,
     196, 419, 33, 133, 362, 263, 127, 356, 162, 389, 21, 251, 34, 264, 227, 447, 116, 345, 117,
     346, 118, 347, 143, 372]
)  # fmt: skip
OUTER_EYE_CORNERS = (33, 263)
EYE_DISTANCE = 0.09  # m between the outer eye corners: what sets the metric scale
FOCAL_PER_HEIGHT = 2.4  # a portrait lens
DISTANCE_RANGE = (0.6, 1.3)  # m
HEAD_DEPTH = 0.06  # m from the midpoint of the outer eye corners back to the origin
LANDMARK_SIGMA = 4e-3  # of the picture height; wide, because neighbours err together
ROTATION_SIGMA, TRANSLATION_SIGMA = 4e-3, 6e-4  # rad and m a frame^2: usual head acceleration


class HeadTrack(NamedTuple):
    """Poses of T frames."""

    world_to_camera: np.ndarray  # float32 [T, 4, 4], OpenCV axes, metres
    focal: float  # px
    valid: np.ndarray  # bool [T]: False where the pose is interpolated
    error: np.ndarray  # float32 [T] px, RMS over the rigid landmarks; 0 if not valid
    points: np.ndarray  # float32 [P, 3] m, the person's mean face in the head frame


def fit_head(pixels, depth, rotation, valid, size, focal=None, rigid=RIGID, rounds=6) -> HeadTrack:
    """Fits shape and poses in turns.

    Args:
      pixels: [T, P, 2] landmarks, px.
      depth: [T, P] their relative depth in px (smaller is nearer), for the first shape.
      rotation: [T, 3, 3] rough head-to-camera rotations, OpenCV axes, for the first poses.
      valid: bool [T], frames with a face.
      size: (height, width) px.
      focal: px; None assumes a portrait lens that puts the head 0.6-1.3 m away.
      rigid: which of the P points move with the skull.
      rounds: how many times poses and shape are solved in turn.

    Raises:
      ValueError: fewer than two frames have a face.
    """
    valid = np.asarray(valid, bool)
    if valid.sum() < 2:
        raise ValueError(
            f"a face was found in {valid.sum()} of {len(valid)} frames; expected it in most of "
            "them: use a clip that shows one face from the front"
        )
    height, width = size
    centre = np.array([width, height]) / 2
    pixels = np.asarray(pixels, np.float64)
    shape, scale = _first_shape(pixels, depth, rotation, valid)
    mean_scale = np.median(scale[valid])  # px a metre
    if focal is None:
        focal = np.clip(FOCAL_PER_HEIGHT * height, *(d * mean_scale for d in DISTANCE_RANGE))
    poses = _first_poses(pixels, shape, scale, rotation, valid, focal, centre)
    sigma = LANDMARK_SIGMA * height
    prior, _weights = shape.copy(), np.ones((len(pixels), len(rigid))) * valid[:, None]
    for _ in range(rounds):
        for _ in range(3):
            poses, _weights = _solve_poses(
                poses, shape[rigid], pixels[:, rigid], valid, focal, centre, sigma
            )
        shape = _solve_shape(shape, prior, poses, pixels, valid, focal, centre, sigma)
        shape = _regauge(shape, prior, rigid)
    poses, _ = _solve_poses(poses, shape[rigid], pixels[:, rigid], valid, focal, centre, sigma)
    residual = project(poses, shape[rigid], focal, centre) - pixels[:, rigid]
    error = np.sqrt((residual**2).sum(-1).mean(-1)) * valid
    matrices = np.tile(np.eye(4), (len(poses), 1, 1))
    matrices[:, :3, :3], matrices[:, :3, 3] = rotation_matrices(poses[:, :3]), poses[:, 3:]
    return HeadTrack(
        matrices.astype(np.float32), float(focal), valid, error.astype(np.float32),
        shape.astype(np.float32),
    )  # fmt: skip


def jitter(world_to_camera) -> tuple[float, float]:
    """Standard deviations of second differences: (degrees, millimetres) a frame^2."""
    vectors = rotation_vectors(np.asarray(world_to_camera, np.float64)[:, :3, :3])
    moves = np.asarray(world_to_camera, np.float64)[:, :3, 3]
    return (
        float(np.degrees(np.diff(vectors, 2, axis=0)).std()),
        float(1e3 * np.diff(moves, 2, axis=0).std()),
    )


def project(poses, points, focal, centre):
    """poses [T, 6] (rotation vector, translation), points [P, 3] -> px [T, P, 2]."""
    camera = points @ rotation_matrices(poses[:, :3]).swapaxes(-1, -2) + poses[:, None, 3:]
    return focal * camera[..., :2] / camera[..., 2:] + centre


def rotation_matrices(vectors):
    """Rodrigues: [..., 3] -> [..., 3, 3]."""
    angle = np.linalg.norm(vectors, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    k = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*x.shape, 3, 3)
    a = np.sinc(angle / np.pi)
    b = 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    return np.eye(3) + a * k + b * k @ k


def rotation_vectors(matrices):
    """[T, 3, 3] -> [T, 3], turns below 180 degrees."""
    skew = matrices - matrices.swapaxes(-1, -2)
    axis = np.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], -1) / 2
    sine = np.linalg.norm(axis, axis=-1)
    angle = np.arctan2(sine, (np.trace(matrices, axis1=1, axis2=2) - 1) / 2)
    return axis * (angle / np.maximum(sine, 1e-12))[:, None]


def _first_shape(pixels, depth, rotation, valid):
    """The median face in the head frame (m), and the picture scale of every frame (px a metre)."""
    points = np.concatenate([pixels, np.asarray(depth, np.float64)[..., None]], -1)
    a, b = OUTER_EYE_CORNERS
    scale = np.linalg.norm(points[:, a] - points[:, b], axis=-1) / EYE_DISTANCE
    scale = np.maximum(scale, 1e-6)
    points = points - (points[:, a] + points[:, b])[:, None] / 2
    local = np.einsum("tij,tpi->tpj", rotation, points / scale[:, None, None])
    shape = np.median(local[valid], 0)
    shape -= (shape[a] + shape[b]) / 2
    shape *= EYE_DISTANCE / np.linalg.norm(shape[a] - shape[b])
    # From between the eyes to the middle of the head: back towards the ears and a little up.
    return shape - np.array([0.0, -0.005, HEAD_DEPTH]), scale


def _first_poses(pixels, shape, scale, rotation, valid, focal, centre):
    a, b = OUTER_EYE_CORNERS
    z = focal / scale
    eyes = (pixels[:, a] + pixels[:, b]) / 2 - centre
    anchor = np.einsum("tij,j->ti", rotation, (shape[a] + shape[b]) / 2)
    moves = np.concatenate([eyes * (z / focal)[:, None], z[:, None]], -1) - anchor
    poses = np.concatenate([rotation_vectors(np.asarray(rotation, np.float64)), moves], -1)
    times = np.arange(len(poses))
    known = times[valid]
    return np.stack([np.interp(times, known, poses[valid, k]) for k in range(6)], -1)


def _robust(residual, limit):
    """Weights of Huber's loss for residual norms [...]."""
    return np.minimum(1.0, limit / np.maximum(residual, 1e-12))


def _solve_poses(poses, points, pixels, valid, focal, centre, sigma):
    """One Gauss-Newton step for all poses at once, with second differences as the prior."""
    num = len(poses)
    residual = pixels - project(poses, points, focal, centre)
    weights = _robust(np.linalg.norm(residual, axis=-1), 2 * sigma) * valid[:, None] / sigma**2
    jacobian = np.stack(
        [
            (
                project(poses + step, points, focal, centre)
                - project(poses - step, points, focal, centre)
            )
            / 2e-6
            for step in 1e-6 * np.eye(6)
        ],
        -1,
    )  # [T, P, 2, 6]
    weighted = jacobian * weights[..., None, None]
    normal = np.einsum("tpia,tpib->tab", weighted, jacobian) + 1e-9 * np.eye(6)
    right = np.einsum("tpia,tpi->ta", weighted, residual)
    sigmas = np.repeat([ROTATION_SIGMA, TRANSLATION_SIGMA], 3)
    bend = np.diff(poses, 2, axis=0) if num > 2 else np.zeros((0, 6))
    # Cauchy's weights: a quick nod is hardly flattened, and a cut in the video not at all.
    stiff = 1 / (1 + (bend / (4 * sigmas)) ** 2) / sigmas**2
    return poses + _solve_banded(normal, right, bend, stiff), weights


def _solve_banded(normal, right, bend, stiff):
    """Solves (blocks + D' W D) x = right - D' W bend; D the second differences over frames.

    Frames in pairs make the matrix block tridiagonal: eliminated forward, substituted backward.
    """
    num = len(normal)
    even = num + num % 2
    diagonal = np.zeros((even, 6, 6))
    diagonal[:num], diagonal[num:] = normal, np.eye(6)
    next1, next2 = np.zeros((even, 6)), np.zeros((even, 6))  # couplings (i, i + 1), (i, i + 2)
    rhs = np.zeros((even, 6))
    rhs[:num] = right
    k = np.arange(6)
    for offset, factor in ((0, 1.0), (1, -2.0), (2, 1.0)):
        rows = slice(offset, offset + len(bend))
        diagonal[rows, k, k] += factor**2 * stiff
        rhs[rows] -= factor * stiff * bend
    next1[: len(bend)] += -2 * stiff
    next1[1 : len(bend) + 1] += -2 * stiff
    next2[: len(bend)] += stiff
    pairs = even // 2
    main = np.zeros((pairs, 12, 12))
    main[:, :6, :6], main[:, 6:, 6:] = diagonal[0::2], diagonal[1::2]
    main[:, k, k + 6] = main[:, k + 6, k] = next1[0::2]
    upper = np.zeros((pairs, 12, 12))  # pair i to pair i + 1
    upper[:, k, k], upper[:, k + 6, k + 6] = next2[0::2], next2[1::2]
    upper[:, k + 6, k] = next1[1::2]
    rhs = rhs.reshape(pairs, 12)
    for i in range(1, pairs):
        gain = np.linalg.solve(main[i - 1], upper[i - 1]).T
        main[i] -= gain @ upper[i - 1]
        rhs[i] -= gain @ rhs[i - 1]
    out = np.zeros_like(rhs)
    for i in range(pairs - 1, -1, -1):
        known = upper[i] @ out[i + 1] if i + 1 < pairs else 0.0
        out[i] = np.linalg.solve(main[i], rhs[i] - known)
    return out.reshape(even, 6)[:num]


def _solve_shape(shape, prior, poses, pixels, valid, focal, centre, sigma, tie=0.004):
    """One Gauss-Newton step for every point by itself; `tie` (m) limits the way from `prior`."""
    use = np.flatnonzero(valid)[:: max(1, int(valid.sum()) // 200)]
    poses, pixels = poses[use], pixels[use]
    rotation = rotation_matrices(poses[:, :3])
    camera = shape @ rotation.swapaxes(-1, -2) + poses[:, None, 3:]
    z = camera[..., 2:]
    residual = pixels - (focal * camera[..., :2] / z + centre)
    weights = _robust(np.linalg.norm(residual, axis=-1), 2 * sigma) / sigma**2
    ratio = (camera[..., :2] / z)[..., None]
    jacobian = focal / z[..., None] * (rotation[:, None, :2] - ratio * rotation[:, None, 2:])
    weighted = jacobian * weights[..., None, None]
    # The prior counts like a tenth of the frames, so that it holds depth in a long clip too.
    hold = 0.1 * len(use) / tie**2
    normal = np.einsum("tpia,tpib->pab", weighted, jacobian) + hold * np.eye(3)
    right = np.einsum("tpia,tpi->pa", weighted, residual) + hold * (prior - shape)
    return shape + np.linalg.solve(normal, right[..., None])[..., 0]


def _regauge(shape, prior, rigid):
    """Turns, shifts and scales the shape back onto the first one: the head frame stays put."""
    source, target = shape[rigid], prior[rigid]
    a, b = source.mean(0), target.mean(0)
    u, s, vt = np.linalg.svd((target - b).T @ (source - a))
    sign = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    turn = u @ sign @ vt
    scale = (s * np.diag(sign)).sum() / ((source - a) ** 2).sum()
    return scale * (shape - a) @ turn.T + b
