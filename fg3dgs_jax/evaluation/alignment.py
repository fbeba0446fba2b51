"""Where two videos of the same speech lie against each other, by their sound."""

from typing import NamedTuple

import numpy as np

from fg3dgs_jax.media.clock import FPS, SAMPLE_RATE

_STEP = 4  # samples that are taken together: 4 kHz is enough to tell speech apart
_SAME = 0.5  # correlation above which two sounds are the same one
_SHORT = 2 * SAMPLE_RATE // _STEP  # of an overlap, two seconds: in less anything correlates


class Lag(NamedTuple):
    """How much later the second sound has what the first one has."""

    seconds: float
    correlation: float  # of the two sounds where both last

    @property
    def same(self) -> bool:
        """Whether the two are the same sound."""
        return self.correlation >= _SAME

    @property
    def frames(self) -> int:
        """The lag in whole frames."""
        return round(self.seconds * FPS)


def between(first: np.ndarray, second: np.ndarray) -> Lag:
    """Returns the lag at which two sounds are most alike.

    Args:
      first: int16 [n] at 16 kHz.
      second: int16 [m] at 16 kHz, any part of the same sound or more than it.
    """
    a, b = (_coarse(x) for x in (first, second))
    if not a.any() or not b.any():
        return Lag(0.0, 0.0)
    size = 1 << (len(a) + len(b) - 2).bit_length()
    products = np.fft.irfft(np.conj(np.fft.rfft(a, size)) * np.fft.rfft(b, size), size)
    lags = np.arange(-(len(a) - 1), len(b))
    begins, ends = np.maximum(-lags, 0), np.minimum(len(a), len(b) - lags)
    # Energies of each overlap, so that a short one is not judged by the whole.
    energy = _between(a, begins, ends) * _between(b, begins + lags, ends + lags)
    least = min(_SHORT, len(a), len(b))
    usable = (ends - begins >= least) & (energy > 1e-6 * energy.max())
    scores = np.where(usable, products[lags], 0.0) / np.sqrt(np.where(usable, energy, 1.0))
    best = int(np.argmax(scores))
    return Lag(float(lags[best] * _STEP / SAMPLE_RATE), float(scores[best]))


def _coarse(samples):
    whole = len(samples) // _STEP * _STEP
    coarse = np.asarray(samples[:whole], np.float64).reshape(-1, _STEP).mean(1)
    return coarse - coarse.mean() if len(coarse) else np.zeros(1)


def _between(x, begins, ends):
    sums = np.concatenate([[0.0], np.cumsum(x * x)])
    return np.maximum(sums[np.maximum(ends, begins)] - sums[begins], 0.0)
