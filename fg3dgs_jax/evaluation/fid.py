"""Frechet distance of two sets of features: how far apart their two Gaussians are.

Everything is in float64. The value depends on the number of frames, because fewer frames than
features leave the covariances without full rank. Only sets of equal size may be compared.
"""

import numpy as np
from numpy.typing import ArrayLike

# What a covariance needs.
MIN_ROWS = 2


class Moments:
    """Mean and covariance of rows that come in batches, without keeping the rows."""

    def __init__(self, width: int):
        """`width`: number of features."""
        self.count = 0
        self.mean = np.zeros(width)
        self._scatter = np.zeros((width, width))  # sum of outer products about the mean

    def add(self, rows: ArrayLike) -> None:
        """Takes in rows [n, width], n >= 1.

        Raises:
          ValueError: they have another shape.
        """
        rows = np.asarray(rows, np.float64)
        if rows.ndim != 2 or not len(rows) or rows.shape[1] != len(self.mean):
            raise ValueError(f"rows have shape {rows.shape}; expected [n >= 1, {len(self.mean)}]")
        mean, total = rows.mean(0), self.count + len(rows)
        step, centred = mean - self.mean, rows - mean
        self._scatter += centred.T @ centred
        self._scatter += np.outer(step, step) * (self.count * len(rows) / total)
        self.mean += step * (len(rows) / total)
        self.count = total

    @property
    def covariance(self) -> np.ndarray:
        """Covariance [width, width] with the divisor n - 1."""
        if self.count < MIN_ROWS:
            raise ValueError(f"there are {self.count} rows; expected at least {MIN_ROWS}")
        return self._scatter / (self.count - 1)


def frechet_distance(
    mean_a: np.ndarray, covariance_a: np.ndarray, mean_b: np.ndarray, covariance_b: np.ndarray
) -> float:
    """Returns |a - b|^2 + tr(A + B - 2 (A B)^1/2) of means [D] and covariances [D, D].

    (A B)^1/2 has the eigenvalues of (A^1/2 B A^1/2)^1/2, which is symmetric and has negative ones
    by rounding only. Unlike a matrix root of A B it exists for covariances without full rank.
    """
    values, vectors = np.linalg.eigh(covariance_a)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    middle = root @ covariance_b @ root
    eigenvalues = np.linalg.eigvalsh((middle + middle.T) / 2)
    cross = np.sqrt(np.maximum(eigenvalues, 0.0)).sum()
    gap = np.sum((np.asarray(mean_a, np.float64) - mean_b) ** 2)
    distance = gap + np.trace(covariance_a) + np.trace(covariance_b) - 2.0 * cross
    return float(max(distance, 0.0))  # equal sets end a rounding error below


def distance(a: Moments, b: Moments) -> float:
    """Returns the Frechet distance of two sets."""
    return frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
