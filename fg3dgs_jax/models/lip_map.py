"""A linear map from a frame's sound to where its lips and chin go, fitted on the clip; ours.

Noise on the sound alone teaches a net to move the lips less, and no noise teaches it the clip by
heart. So the sound of a guide frame moves and its landmarks move with it, as this map says: the net
keeps what the frame shows, and between and beyond the clip's sounds it becomes as linear as a ridge
regression, which follows new speech better than a net.

Features of the extractor `lips` begin with the lips' opening and width, in standard deviations of
whoever speaks. The fit is drawn towards that: this mouth opens and widens as its own landmarks
do, by as much as people's mouths do. Where a clip shows little of a movement, that is what counts.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax import geometry
from fg3dgs_jax.clip.landmarks import CHIN, EYE_CORNERS, GUIDES, INNER_LIPS, LIP_MIDDLES, OUTER_LIPS
from fg3dgs_jax.types import Array, Camera

EXTRACTOR = "lips"  # whose features the map is of
POINTS = (*OUTER_LIPS, *INNER_LIPS, 148, CHIN, 377)
ROWS = np.array([GUIDES.index(point) for point in POINTS])  # of the guides
OFFSETS = range(-4, 4)  # frames from the one drawn, as the windows of `batches.take`
PENALTY = 3.0  # a frame, with features of deviation 1, of slopes unlike those common to all people
# Measured on 40 speakers: deviations of opening and width, in distances between the eyes.
DEVIATIONS = (0.060, 0.043)
# A prior's curves are regressed, so they vary less than lips do: a gain on what is common to all
# people, and one on all that the sound is taken to move.
COMMON_GAIN, GAIN = 1.3, 1.3
ALONG, ACROSS = 1.0, 0.33  # how far a sound moves: see `moved`


class LipMap(NamedTuple):
    """How lips and chin follow the features of one of a frame's windows."""

    slopes: Array  # [K, P, 2] metres a feature, in the head's x and y
    scale: Array  # [K] standard deviations over the frames learnt from
    window: Array  # [] which of a frame's windows: a clip's sound may be early or late
    sounds: Array  # [N, K] features of the frames learnt from


def fit(audio: np.ndarray, learnt: np.ndarray, moves: np.ndarray, guides: np.ndarray) -> LipMap:
    """Fits a map by ridge regression towards the mouth's own opening and width.

    Args:
      audio: [T, 1, K] features of `EXTRACTOR`.
      learnt: numbers of the frames to learn from.
      moves: [N, P, 2] metres, of `displacements` at those.
      guides: [G, 3] metres.
    """
    features = audio[:, 0]
    sounds = features[learnt]
    scale = np.maximum(sounds.std(0), 1e-3)
    y = (moves - moves.mean(0)).reshape(len(learnt), -1).astype(np.float64)
    prior = _of_curves(moves, guides)
    start = np.zeros((features.shape[1], y.shape[1]))
    start[:2] = prior * scale[:2, None]
    fits = []
    for offset in OFFSETS:
        x = features[np.clip(learnt + offset, 0, len(features) - 1)]
        x = ((x - x.mean(0)) / scale).astype(np.float64)
        normal = x.T @ x + PENALTY * len(x) * np.eye(x.shape[1])
        slopes = start + np.linalg.solve(normal, x.T @ (y - x @ start))
        fits.append((((y - x @ slopes) ** 2).sum(), slopes))
    window = int(np.argmin([error for error, _ in fits]))
    slopes = GAIN * fits[window][1] / scale[:, None]
    return LipMap(
        slopes=jnp.asarray(slopes.reshape(-1, *moves.shape[1:]), jnp.float32),
        scale=jnp.asarray(scale),
        window=jnp.asarray(window),
        sounds=jnp.asarray(sounds),
    )


def _of_curves(moves: np.ndarray, guides: np.ndarray) -> np.ndarray:
    """[2, 2 P] metres: what one deviation of opening and of width moves, in this face."""
    at = {point: i for i, point in enumerate(POINTS)}
    upper, lower = (at[p] for p in LIP_MIDDLES)
    right, left = at[61], at[291]
    curves = np.stack(
        [moves[:, lower, 1] - moves[:, upper, 1], moves[:, left, 0] - moves[:, right, 0]]
    )
    curves = (curves - curves.mean(1, keepdims=True)).T.astype(np.float64)
    y = (moves - moves.mean(0)).reshape(len(moves), -1)
    still = 1e-9 * len(curves) * np.eye(2)  # (0.03 mm)^2 a frame: for lips that do not move
    normal = curves.T @ curves + still
    per_metre = np.linalg.solve(normal, curves.T @ y)
    eyes = np.diff(guides[[GUIDES.index(p) for p in EYE_CORNERS]], axis=0)
    return COMMON_GAIN * np.array(DEVIATIONS)[:, None] * np.linalg.norm(eyes) * per_metre


def displacements(pixels: Array, guides: Array, camera: Camera) -> Array:
    """How far lips and chin are from the guides' places, in metres, in the head's x and y.

    Args:
      pixels: [T, G, 2] px, where the guides appear.
      guides: [G, 3] metres.
      camera: of the T frames, every field with a leading [T].

    Returns:
      [T, P, 2]. Depth is left as it is.
    """
    points, pose = guides[ROWS], camera.world_to_camera
    at = pixels[:, ROWS]
    u = (at[..., 0] - camera.cx[:, None]) / camera.fx[:, None]
    v = (at[..., 1] - camera.cy[:, None]) / camera.fy[:, None]
    fixed = points[:, 2:] * pose[:, None, :3, 2] + pose[:, None, :3, 3]  # [T, P, 3]
    rows, offsets = [], []
    for axis, slope in ((0, u), (1, v)):  # (R_axis - slope R_z) (x, y) = slope f_z - f_axis
        rows.append(pose[:, None, axis, :2] - slope[..., None] * pose[:, None, 2, :2])
        offsets.append(slope * fixed[..., 2] - fixed[..., axis])
    places = jnp.linalg.solve(jnp.stack(rows, -2), jnp.stack(offsets, -1)[..., None])[..., 0]
    return places - points[:, :2]


def moved(key: Array, lips: LipMap, count: int, size: float) -> tuple[Array, Array]:
    """Draws how far the sounds of `count` frames move, and their lips with them.

    A sound moves along the difference of two others of the clip, and a little in any direction. All
    windows of a frame move alike: a net could average over what differs among them.

    Args:
      key: consumed.
      lips: the map.
      count: B.
      size: 1 moves a sound as far as sounds of the clip lie apart.

    Returns:
      Features [B, K] to add, and metres [P, 2] a frame, [B, P, 2].
    """
    key_pairs, key_along, key_across = jax.random.split(key, 3)
    one, other = jax.random.randint(key_pairs, (2, count), 0, len(lips.sounds))
    along = ALONG * jax.random.normal(key_along, (count, 1)) / 2**0.5
    across = ACROSS * lips.scale * jax.random.normal(key_across, (count, len(lips.scale)))
    off = size * (along * (lips.sounds[one] - lips.sounds[other]) + across)
    return off, jnp.einsum("bk,kpi->bpi", off, lips.slopes)


def shifted(pixels: Array, guides: Array, camera: Camera, moves: Array) -> Array:
    """One frame's guide pixels [G, 2] after lips and chin moved by `moves` [P, 2] metres."""
    places = guides.at[ROWS, :2].add(moves)
    return (
        pixels + geometry.project_points(places, camera) - geometry.project_points(guides, camera)
    )
