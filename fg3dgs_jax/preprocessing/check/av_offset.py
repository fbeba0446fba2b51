"""How late the sound of a clip is against its lips, from the landmarks and the sound alone.

At every lag the movement of the lips is predicted, linearly, from the spectrum of the sound at that
lag, on parts of the clip that the prediction was not fitted to. The right lag predicts best. It is
a spectrum and not the loudness alone, because "s" is loud with closed teeth. On real clips this
doubles the correlation and shows one narrow peak where loudness has several. The fit is made for
each clip, because microphone and person differ. Lags that cannot be right (seconds away) show what
chance predicts.
"""

from typing import NamedTuple

import numpy as np

from fg3dgs_jax.media.clock import FPS, SAMPLE_RATE

RATE = 50  # rows a second of sound and lips
REACH = 1.0  # s, lags looked at, either way
BANDS = 16
TREND = 1.0  # s; slower movement (smiles, level) is taken away
FOLDS = 5
RIDGE = 0.05
FAR = 2.0  # s; lags beyond it cannot be right
MIN_SECONDS = 6.0
CERTAIN = 4.5  # standard deviations above chance
MAX_SPREAD = 0.06  # s, between estimates that each leave out a quarter of the clip
IN_STEP = 0.06  # s; nobody notices less, and a frame is 0.04

_EYES, _LIPS, _CORNERS = (33, 263), (13, 14), (61, 291)


class Offset(NamedTuple):
    """What `estimate` found; `seconds` means something only where `certain`."""

    seconds: float  # of lateness of the sound: positive, the lips come first
    certain: bool
    height: float  # standard deviations of the best lag above chance
    spread: float  # s, how far estimates from three quarters of the clip lie apart at most
    reason: str  # why not certain; empty where it is

    def __str__(self) -> str:
        return self.in_words()

    def in_words(self, already: float = 0.0) -> str:
        """What was found, for sound that has been moved back by `already` s before."""
        if not self.certain:
            return f"not certain ({self.reason})"
        if abs(self.seconds) <= IN_STEP:
            return f"in step ({round(1000 * self.seconds):+d} ms)"
        way = "late" if self.seconds > 0 else "early"
        return (
            f"sound {abs(1000 * self.seconds):.0f} ms {way}: "
            f"correct it with --av_offset {already + self.seconds:.2f}"
        )


def estimate(points: np.ndarray, valid: np.ndarray, samples: np.ndarray) -> Offset:
    """The lateness of the sound.

    Args:
      points: [T, 478, 2] px landmarks, one row a frame (25 a second).
      valid: bool [T], False where no face was seen.
      samples: int16 [n], 16 kHz; sample 0 is the start of frame 0.
    """
    points, valid = np.asarray(points), np.asarray(valid, bool)
    if valid.sum() < MIN_SECONDS * FPS:
        return _uncertain(f"a face in {valid.sum() / FPS:.1f} s, {MIN_SECONDS:g} s needed")
    lips, known = _lip_rows(points, valid)
    sound = _high_pass(_spectrum_rows(samples, len(lips)))
    lips = _high_pass(lips)
    if min(lips.std(0).min(), sound.std(0).max()) < 1e-6:
        return _uncertain("nothing moves, or nothing is heard")
    reach, far = int(REACH * RATE), int(FAR * RATE)
    lags = np.arange(-reach, reach + 1)
    parts = [_part_sums(sound, lips, known, lag) for lag in lags]
    curve = np.array([_score(p) for p in parts])
    chance = np.array(
        [
            _score(_part_sums(sound, lips, known, k))
            for k in np.linspace(far, len(lips) - far, 60).astype(int)
        ]
    )
    height = float((curve.max() - chance.mean()) / (chance.std() + 1e-6))
    best = _peak(lags, curve) / RATE
    fewer = [
        _peak(lags, np.array([_score(np.delete(p, k, 0)) for p in parts])) / RATE
        for k in range(FOLDS)
    ]
    spread = float(np.ptp(fewer))
    reason = ""
    if height < CERTAIN:
        reason = f"lips and sound agree {height:.1f} sigma above chance, {CERTAIN:g} needed"
    elif spread > MAX_SPREAD:
        reason = f"parts of the clip differ by {1000 * spread:.0f} ms"
    elif abs(best) > REACH - 0.05:
        reason = f"at the end of the range looked at, {REACH:g} s"
    return Offset(float(best), not reason, height, spread, reason)


def _uncertain(reason):
    return Offset(0.0, False, 0.0, 0.0, reason)


def _lip_rows(points, valid):
    """Lip gap and mouth width over eye distance [R, 2] at `RATE`, and which rows are seen."""

    def gap(a, b):
        return np.linalg.norm(points[:, a] - points[:, b], axis=-1)

    rows = np.stack([gap(*_LIPS), gap(*_CORNERS)], 1) / np.maximum(gap(*_EYES), 1e-6)[:, None]
    frames = np.arange(len(points))
    times = np.arange(len(points) * RATE // FPS) * (FPS / RATE)
    out = [np.interp(times, frames[valid], column[valid]) for column in rows.T]
    return np.stack(out, 1), np.interp(times, frames, valid) > 0.99


def _spectrum_rows(samples, count):
    """Log energies [count, BANDS] on the mel scale in 40 ms around row k's time, k / RATE s."""
    hop, size = SAMPLE_RATE // RATE, SAMPLE_RATE // 25
    samples = np.asarray(samples[: count * hop], np.float32) / 32768.0
    samples = np.pad(samples, (size // 2, count * hop - len(samples) + size))
    views = np.lib.stride_tricks.sliding_window_view(samples, size)[::hop][:count]
    bins = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    mel = 2595 * np.log10(1 + bins / 700)
    edges = np.linspace(2595 * np.log10(1 + 80 / 700), mel[-1], BANDS + 2)
    step = edges[1] - edges[0]
    weights = np.clip(1 - np.abs(mel[:, None] - edges[1:-1]) / step, 0, None)
    energy = np.empty((count, BANDS))
    for start in range(0, count, 4096):  # bounds the memory of an hour of sound
        part = np.fft.rfft(views[start : start + 4096] * np.hanning(size))
        energy[start : start + 4096] = np.abs(part) ** 2 @ weights
    return np.log(energy + 1e-4 * energy.mean() + 1e-12)


def _high_pass(rows):
    """Rows [R, C] less their smooth trend."""
    width = int(TREND * RATE) // 2 * 2 + 1
    window = np.hanning(width + 2)[1:-1]
    padded = np.pad(rows, ((width // 2, width // 2), (0, 0)), mode="edge")
    smooth = [np.convolve(c, window / window.sum(), "valid") for c in padded.T]
    return rows - np.stack(smooth, 1)


def _part_sums(sound, lips, known, lag):
    """Sums over each fold of z z^T [FOLDS, D, D], z = (1, sound at row + lag, lips at row)."""
    reach = int(REACH * RATE)
    rows = np.roll(sound, -lag, 0)
    z = np.concatenate([np.ones((len(rows), 1)), rows, lips], 1)[reach:-reach]
    z *= known[reach:-reach, None]
    return np.stack([part.T @ part for part in np.array_split(z, FOLDS)])


def _score(parts):
    """Correlation of lips with their prediction, the mean over the two lip measures.

    Each fold is predicted from the others.
    """
    total = parts.sum(0)
    d = 1 + BANDS
    errors, spreads = 0.0, 0.0
    products = 0.0
    for part in parts:
        rest = total - part
        scale = np.sqrt(np.diag(rest)[1:d] / rest[0, 0]) + 1e-9
        ridge = np.diag(np.concatenate([[1e-9], RIDGE * scale**2])) * rest[0, 0]
        w = np.linalg.solve(rest[:d, :d] + ridge, rest[:d, d:])  # [d, 2]
        products = products + np.einsum("dk,dk->k", w, part[:d, d:])
        errors = errors + np.einsum("dk,de,ek->k", w, part[:d, :d], w)
        spreads = spreads + np.diag(part)[d:]
    return float(np.mean(products / np.sqrt(errors * spreads + 1e-18)))


def _peak(lags, curve):
    """Where the curve [L] is highest, between the grid's lags by a parabola."""
    i = int(np.argmax(curve))
    if not 0 < i < len(curve) - 1:
        return float(lags[i])
    a, b, c = curve[i - 1 : i + 2]
    return float(lags[i] + 0.5 * (a - c) / min(a - 2 * b + c, -1e-9))
