"""Bundle adjustment of one rigid head seen by one still camera: Gauss-Newton on all unknowns.

Unknowns: a pose a frame, the head's landmarks, the focal length. Ordered poses first, the normal
equations are

    [ A   B ] [poses         ]   [a]      A [6T, 6T] banded: the prior ties four frames,
    [ B'  C ] [shape, focal  ] = [b]      C [3P + 1, 3P + 1] small,

so the poses are eliminated (Schur complement). One banded Cholesky factor serves the 3P + 2 right
sides, and a dense system of a hundred-odd unknowns is left. Cost: linear in the frames. Double
precision throughout, hence NumPy: in single precision A's condition (translation in metres beside
px of noise) eats the digits that jitter is measured in.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import solveh_banded

CHUNK = 512  # frames whose Jacobians are held at once
# Of the differences over frames that the temporal prior keeps small. Third rather than second ones:
# at equal noise a nod of 3 Hz keeps more of its height.
ORDER = 3
POINT_FRAMES, POINT_ROUNDS = 200, 4  # of `solve_points`
QUICK = 4.0  # standard deviations from which on a motion is taken to be meant


class Scales(NamedTuple):
    """Standard deviations that weigh the terms of the fit against each other."""

    landmark: float  # px
    rotation: float  # rad a frame^3
    translation: float  # m a frame^3
    shape: float  # m from the first shape
    focal: float  # relative
    cuts: tuple[int, ...] = ()  # frames that begin another scene: no motion leads to them


class Unknowns(NamedTuple):
    """What the fit solves for."""

    poses: np.ndarray  # [T, 6] rotation vector (rad), translation (m), head to camera
    points: np.ndarray  # [P, 3] m, head frame
    focal: float  # px


def project(poses: np.ndarray, points: np.ndarray, focal: float, centre: np.ndarray) -> np.ndarray:
    """Pixels [T, P, 2] of points [P, 3] under poses [T, 6] (rotation vector, translation)."""
    camera = points @ rotation_matrices(poses[:, :3]).swapaxes(-1, -2) + poses[:, None, 3:]
    return focal * camera[..., :2] / camera[..., 2:] + centre


def rotation_matrices(vectors: np.ndarray) -> np.ndarray:
    """Rodrigues: [..., 3] -> [..., 3, 3]."""
    a, b, k = _rodrigues(vectors)
    return np.eye(3) + a * k + b * k @ k


def rotation_vectors(matrices: np.ndarray) -> np.ndarray:
    """[T, 3, 3] -> [T, 3], turns below 180 degrees."""
    skew = matrices - matrices.swapaxes(-1, -2)
    axis = np.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], -1) / 2
    sine = np.linalg.norm(axis, axis=-1)
    angle = np.arctan2(sine, (np.trace(matrices, axis1=1, axis2=2) - 1) / 2)
    return axis * (angle / np.maximum(sine, 1e-12))[:, None]


def jacobians(poses: np.ndarray, points: np.ndarray, focal: float) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives of `project`: by the pose [T, P, 2, 6] and by the point [T, P, 2, 3]."""
    rotation = rotation_matrices(poses[:, :3])
    turned = points @ rotation.swapaxes(-1, -2)
    camera = turned + poses[:, None, 3:]
    z = camera[..., 2]
    by_camera = np.zeros((*camera.shape[:2], 2, 3))
    by_camera[..., 0, 0] = by_camera[..., 1, 1] = focal / z
    by_camera[..., 2] = -focal * camera[..., :2] / z[..., None] ** 2
    by_turn = -_cross_matrices(turned) @ _left_jacobians(poses[:, :3])[:, None]
    by_pose = np.concatenate([by_camera @ by_turn, by_camera], -1)
    return by_pose, by_camera @ rotation[:, None]


def huber_weights(residual: np.ndarray, limit: float) -> np.ndarray:
    """Weights of Huber's loss for residual norms [...]."""
    return np.minimum(1.0, limit / np.maximum(residual, 1e-12))


def step(
    now: Unknowns,
    start: Unknowns,
    pixels: np.ndarray,
    weights: np.ndarray,
    centre: np.ndarray,
    scales: Scales,
    images: tuple[np.ndarray, np.ndarray] | None = None,
) -> Unknowns:
    """One Gauss-Newton step.

    Args:
      now: where the fit stands.
      start: the first guess, to which shape and focal length are tied.
      pixels: [T, P, 2] px.
      weights: [T, P] of the landmarks, 0 where there is none.
      centre: [2] px, of the picture.
      scales: how much each term weighs.
      images: (matrices [T, 6, 6], right sides [T, 6]) of further terms on the poses, or None.
    """
    blocks, right, coupling, corner, corner_right = _landmark_terms(
        now, pixels, weights, centre, scales.landmark
    )
    if images is not None:
        blocks, right = blocks + images[0], right + images[1]
    band, rhs = _banded(blocks, right, now.poses, scales)
    both = np.concatenate([rhs[:, None], coupling.reshape(rhs.size, -1)], 1)
    solved = solveh_banded(band, both, lower=True, overwrite_ab=True, check_finite=False)
    flat = coupling.reshape(rhs.size, -1)
    hold = _hold(now, start, len(pixels), scales)
    schur = corner + np.diag(hold[0]) - flat.T @ solved[:, 1:]
    small = np.linalg.solve(schur, corner_right + hold[1] - flat.T @ solved[:, 0])
    poses = now.poses + (solved[:, 0] - solved[:, 1:] @ small).reshape(-1, 6)
    points = now.points + small[:-1].reshape(-1, 3)
    return Unknowns(poses, points, now.focal * float(np.exp(small[-1])))


def solve_points(
    now: Unknowns,
    points: np.ndarray,
    pixels: np.ndarray,
    valid: np.ndarray,
    centre: np.ndarray,
    sigma: float,
    tie: float,
) -> np.ndarray:
    """Points [P, 3] by themselves under the poses of `now`.

    Of lips and lids this is the mean over the clip; evenly chosen frames are enough.

    Args:
      now: where the fit stands.
      points: [P, 3] m, to start from.
      pixels: [T, P, 2] px.
      valid: bool [T], frames with a face.
      centre: [2] px, of the picture.
      sigma: px, standard deviation of a landmark.
      tie: m, standard deviation of a point from where it started.
    """
    use = np.flatnonzero(valid)
    use = use[:: max(1, len(use) // POINT_FRAMES)]
    hold = 0.1 * len(use) / tie**2
    out = points.copy()
    for _ in range(POINT_ROUNDS):
        residual = pixels[use] - project(now.poses[use], out, now.focal, centre)
        w = huber_weights(np.linalg.norm(residual, axis=-1), 2 * sigma) / sigma**2
        _, by_point = jacobians(now.poses[use], out, now.focal)
        weighted = by_point * w[..., None, None]
        normal = np.einsum("tpia,tpib->pab", weighted, by_point) + hold * np.eye(3)
        right = np.einsum("tpia,tpi->pa", weighted, residual) + hold * (points - out)
        out = out + np.linalg.solve(normal, right[..., None])[..., 0]
    return out


def pose_step(
    poses: np.ndarray, blocks: np.ndarray, right: np.ndarray, scales: Scales
) -> np.ndarray:
    """The step of the poses alone, for normal equations [T, 6, 6] and [T, 6] of their data."""
    band, rhs = _banded(blocks, right, poses, scales)
    return poses + solveh_banded(band, rhs, lower=True).reshape(-1, 6)


def pose_terms(
    now: Unknowns, pixels: np.ndarray, weights: np.ndarray, centre: np.ndarray, sigma: float
) -> tuple[np.ndarray, np.ndarray]:
    """Normal equations of the landmarks by the poses alone: [T, 6, 6], [T, 6]."""
    return _landmark_terms(now, pixels, weights, centre, sigma)[:2]


def _landmark_terms(now, pixels, weights, centre, sigma):
    """Blocks [T, 6, 6], right [T, 6], coupling [T, 6, 3P + 1], corner and its right side."""
    num, count = pixels.shape[:2]
    blocks, right = np.zeros((num, 6, 6)), np.zeros((num, 6))
    coupling = np.zeros((num, 6, 3 * count + 1))
    corner, corner_right = np.zeros((3 * count + 1,) * 2), np.zeros(3 * count + 1)
    diagonal = np.zeros((count, 3, 3))
    for begin in range(0, num, CHUNK):
        part = slice(begin, begin + CHUNK)
        shown = project(now.poses[part], now.points, now.focal, centre)
        residual = pixels[part] - shown
        w = weights[part] * huber_weights(np.linalg.norm(residual, axis=-1), 2 * sigma) / sigma**2
        by_pose, by_point = jacobians(now.poses[part], now.points, now.focal)
        by_focal = shown - centre  # by the logarithm of the focal length
        pose_w, point_w = by_pose * w[..., None, None], by_point * w[..., None, None]
        focal_w = by_focal * w[..., None]
        blocks[part] = np.einsum("tpia,tpib->tab", pose_w, by_pose, optimize=True)
        right[part] = np.einsum("tpia,tpi->ta", pose_w, residual)
        mixed = np.einsum("tpia,tpib->tapb", pose_w, by_point)
        coupling[part, :, :-1] = mixed.reshape(*mixed.shape[:2], -1)
        coupling[part, :, -1] = np.einsum("tpia,tpi->ta", pose_w, by_focal)
        diagonal += np.einsum("tpia,tpib->pab", point_w, by_point)
        corner[:-1, -1] += np.einsum("tpia,tpi->pa", point_w, by_focal).ravel()
        corner[-1, -1] += (focal_w * by_focal).sum()
        corner_right[:-1] += np.einsum("tpia,tpi->pa", point_w, residual).ravel()
        corner_right[-1] += (focal_w * residual).sum()
    corner[-1, :-1] = corner[:-1, -1]
    for p in range(count):
        corner[3 * p : 3 * p + 3, 3 * p : 3 * p + 3] = diagonal[p]
    return blocks, right, coupling, corner, corner_right


def _hold(now, start, num, scales):
    """Diagonal and right side of what ties shape and focal length to the first guess.

    Neighbouring frames share the errors of their landmarks, so that T frames are worth far fewer
    independent ones. The tie of the shape counts as a tenth of the frames.
    """
    diagonal = np.full(now.points.size + 1, 0.1 * num / scales.shape**2)
    diagonal[-1] = 0.1 * num / scales.focal**2
    off = np.append((start.points - now.points).ravel(), np.log(start.focal / now.focal))
    return diagonal, diagonal * off


def _banded(blocks, right, poses, scales):
    """Lower banded form of the poses' matrix with its temporal prior, and its right side.

    The first is [6 (ORDER + 1) + 1, 6T].

    The prior has Cauchy's weights, so that a quick nod is hardly flattened, and none across a cut.
    """
    num = len(poses)
    band = np.zeros((6 * ORDER + 1, num, 6))
    for offset in range(6):
        k = np.arange(6 - offset)
        band[offset, :, k] = blocks[:, k + offset, k].T
    band[0] += 1e-9 * blocks[:, range(6), range(6)].max(0)
    rhs = right.copy()
    if num > ORDER:
        factors = np.diff(np.eye(ORDER + 1), ORDER, axis=0)[0]
        sigmas = np.repeat([scales.rotation, scales.translation], 3)
        bend = np.diff(poses, ORDER, axis=0)
        stiff = 1 / (1 + (bend / (QUICK * sigmas)) ** 2) / sigmas**2
        for cut in scales.cuts:
            stiff[max(cut - ORDER, 0) : cut] = 0
        for i, factor in enumerate(factors):
            rows = slice(i, i + num - ORDER)
            rhs[rows] -= factor * stiff * bend
            for j in range(i + 1):
                band[6 * (i - j), j : j + num - ORDER] += factor * factors[j] * stiff
    return band.reshape(6 * ORDER + 1, -1), rhs.reshape(-1)


def _rodrigues(vectors):
    """sin(x)/x and (1 - cos(x))/x^2 [..., 1, 1], and the cross-product matrices [..., 3, 3]."""
    angle = np.linalg.norm(vectors, axis=-1)[..., None, None]
    a = np.sinc(angle / np.pi)
    b = 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    return a, b, _cross_matrices(vectors)


def _cross_matrices(vectors):
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*x.shape, 3, 3)


def _left_jacobians(vectors):
    """d(rotation of vectors + d) = exp(J d) rotation: J [T, 3, 3]."""
    _, b, k = _rodrigues(vectors)
    angle2 = (vectors**2).sum(-1)[..., None, None]
    angle = np.sqrt(angle2)
    c = np.where(angle2 < 1e-6, 1 / 6, (angle - np.sin(angle)) / np.maximum(angle2 * angle, 1e-12))
    return np.eye(3) + b * k + c * k @ k
