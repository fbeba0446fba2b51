"""Gaussians: how they begin, and how stored values become drawn ones (eqs. (1) and (2))."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax.rasterizer.sh import SH_BAND_0
from fg3dgs_jax.types import Array, GaussianDeltas, Gaussians

INITIAL_OPACITY = 0.1


class Drawable(NamedTuple):
    """Gaussians as the rasterizer takes them."""

    means: Array  # [N, 3] metres
    quats: Array  # [N, 4] wxyz, not normalised
    scales: Array  # [N, 3] metres
    opacities: Array  # [N] in [0, 1]
    sh: Array  # [N, K, 3]


def activate(
    gaussians: Gaussians, deltas: GaussianDeltas | None = None, alive: Array | None = None
) -> Drawable:
    """G + Delta G, made drawable; slots outside `alive` [N] bool (None: all) get opacity 0."""
    means, quats, raw_scales = gaussians.means, gaussians.quats, gaussians.raw_scales
    if deltas is not None:
        means = means + deltas.means
        quats = quats if deltas.quats is None else quats + deltas.quats
        raw_scales = raw_scales if deltas.raw_scales is None else raw_scales + deltas.raw_scales
    opacities = jax.nn.sigmoid(gaussians.logit_opacities)
    if alive is not None:
        opacities = jnp.where(alive, opacities, 0.0)
    return Drawable(means, quats, jax.nn.softplus(raw_scales), opacities, gaussians.sh)


def init_gaussians_from_points(
    points: np.ndarray, colors: np.ndarray, capacity: int, sh_degree: int = 2
) -> tuple[Gaussians, Array]:
    """A Gaussian at each of `points` [P, 3] metres, of `colors` [P, 3] in [0, 1].

    Sized by the mean distance d to the three nearest others: raw scale log d, so scale ln(1 + d).
    Returns (Gaussians, alive [capacity] bool).

    Raises:
      ValueError: no points, more points than slots, or a degree outside 0..3.
    """
    points, colors = np.asarray(points, np.float32), np.asarray(colors, np.float32)
    num = len(points)
    if not 0 < num <= capacity:
        raise ValueError(
            f"{num} points for {capacity} slots; expected between 1 and the number of slots"
        )
    if sh_degree not in (0, 1, 2, 3):
        raise ValueError(f"sh_degree is {sh_degree}; expected 0, 1, 2 or 3")
    # Slots that are not alive hold harmless values: the cloud's centre, the median size.
    raw_scales = np.log(_neighbour_distances(points))
    means = _fill(points, capacity, points.mean(0))
    sh = np.zeros((capacity, (sh_degree + 1) ** 2, 3), np.float32)
    sh[:num, 0] = (colors - 0.5) / SH_BAND_0
    gaussians = Gaussians(
        means=jnp.asarray(means),
        quats=jnp.tile(jnp.array([1.0, 0.0, 0.0, 0.0]), (capacity, 1)),
        raw_scales=jnp.asarray(
            np.repeat(_fill(raw_scales[:, None], capacity, np.median(raw_scales)), 3, 1)
        ),
        logit_opacities=jnp.full((capacity,), jax.scipy.special.logit(INITIAL_OPACITY)),
        sh=jnp.asarray(sh),
    )
    return gaussians, jnp.arange(capacity) < num


def _neighbour_distances(points: np.ndarray, neighbours: int = 3) -> np.ndarray:
    """Mean distance [P] to the nearest others, 0.3 mm or more; 1 cm for a lone point."""
    count = min(neighbours, len(points) - 1)
    if count == 0:
        return np.full(1, 0.01, np.float32)
    from scipy.spatial import KDTree  # here, for whoever draws an avatar would wait for it

    distances, _ = KDTree(points).query(points, k=count + 1)
    return np.maximum(distances[:, 1:].mean(1), 3e-4).astype(np.float32)


def _fill(rows: np.ndarray, capacity: int, value: float | np.floating | np.ndarray) -> np.ndarray:
    out = np.empty((capacity, *rows.shape[1:]), np.float32)
    out[: len(rows)], out[len(rows) :] = rows, value
    return out
