"""How late the sound of a clip is against its lips, from the landmarks and the sound alone.

At every lag the movement of the lips is predicted, linearly, from the spectrum of the sound at that
lag, on parts of the clip that the prediction was not fitted to. The right lag predicts best. It is
a spectrum and not the loudness alone, because "s" is loud with closed teeth. On real clips this
doubles the correlation and shows one narrow peak where loudness has several. The fit is made for
each clip, because microphone and person differ. Lags that cannot be right (seconds away) show what
chance predicts.

A prediction of the lips from the sound, learnt from other people, is a second witness. Nothing is
fitted to the clip then, so that a few seconds suffice. Both witnesses' curves over the lags are in
standard deviations of chance, and their weighted sum decides.
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
MIN_SECONDS = 6.0  # of a seen face, for the spectrum
CERTAIN = 4.5  # standard deviations above chance, of the spectrum alone
PREDICTED_SECONDS = 4.0  # of a seen face, with a prediction
PREDICTED_CERTAIN = 4.0  # standard deviations above chance, with a prediction
WEIGHT = 0.6  # of the spectrum beside a prediction, which is the better witness
MEMORY = 1.5  # s; lips are not like themselves any more after that
MAX_SPREAD = 0.06  # s, between estimates that each leave out a fifth of the clip
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
        if not self.out_of_step:
            return self.found
        return f"{self.found}: correct it with --av_offset {already + self.seconds:.2f}"

    @property
    def out_of_step(self) -> bool:
        """Whether the sound is certainly out of step."""
        return self.certain and abs(self.seconds) > IN_STEP

    @property
    def found(self) -> str:
        """The lateness in words, where it is certain."""
        if not self.out_of_step:
            return f"in step ({round(1000 * self.seconds):+d} ms)"
        way = "late" if self.seconds > 0 else "early"
        return f"sound {abs(1000 * self.seconds):.0f} ms {way}"


class Correction(NamedTuple):
    """By how much a clip's sound is moved back, and why."""

    seconds: float  # negative: the sound is moved on
    measured: Offset | None  # what it was decided by; None: the user set the number

    def __str__(self) -> str:
        """What was decided, in words."""
        move = f"moved by {-self.seconds:+.3f} s" if self.seconds else "not moved"
        if self.measured is None:
            return f"{move}, as set"
        if not self.seconds:
            return f"{move} (auto): {self.measured}"
        return (
            f"{move} (auto): {self.measured.found}, {self.measured.height:.1f} sigma above chance"
        )


def correct(measured: Offset) -> Correction:
    """Decides by an estimate: sound that is certainly out of step is moved back."""
    return Correction(round(measured.seconds, 3) if measured.out_of_step else 0.0, measured)


def estimate(
    points: np.ndarray,
    valid: np.ndarray,
    samples: np.ndarray,
    predicted: np.ndarray | None = None,
    gauge: float = 0.0,
) -> Offset:
    """Measures the lateness of the sound.

    Args:
      points: [T, 478, 2] px landmarks, one row a frame (25 a second).
      valid: bool [T], False where no face was seen.
      samples: int16 [n], 16 kHz; sample 0 is the start of frame 0.
      predicted: [T, C >= 2], what a model of other people expects of the lips when it listens to
        `samples`: opening and width first, in any unit. None: the spectrum is the only witness.
      gauge: s by which that model finds the sound of clips in step to be late.

    Returns:
      The lateness, and how certain it is.
    """
    points, valid = np.asarray(points), np.asarray(valid, bool)
    needed = MIN_SECONDS if predicted is None else PREDICTED_SECONDS
    if valid.sum() < needed * FPS:
        return _uncertain(f"a face in {valid.sum() / FPS:.1f} s, {needed:g} s needed")
    lips, known = _lip_rows(points, valid)
    lips = _high_pass(lips)
    reach = int(REACH * RATE)
    lags = np.arange(-reach, reach + 1)
    witnesses, weights = [], []
    if valid.sum() >= MIN_SECONDS * FPS:
        witnesses.append(_spectrum_witness(samples, lips, known, lags))
        weights.append(1.0 if predicted is None else WEIGHT)
    if predicted is not None:
        rows = _high_pass(_predicted_rows(np.asarray(predicted)[:, :2], gauge, len(lips)))
        witnesses.append(_prediction_witness(rows, lips, known, lags))
        weights.append(1.0)
    if any(witness is None for witness in witnesses):
        return _uncertain("nothing moves, or nothing is heard")
    # [1 + FOLDS, L]: all of the clip, and the clip less each of its parts.
    curves = np.tensordot(weights, np.stack(witnesses), 1) / np.linalg.norm(weights)
    height = float(curves[0].max())
    best, *fewer = (_peak(lags, curve) / RATE for curve in curves)
    spread = float(np.ptp(fewer))
    certain = CERTAIN if predicted is None else PREDICTED_CERTAIN
    reason = ""
    if height < certain:
        reason = f"lips and sound agree {height:.1f} sigma above chance, {certain:g} needed"
    elif spread > MAX_SPREAD:
        reason = f"parts of the clip differ by {1000 * spread:.0f} ms"
    elif abs(best) > REACH - 0.05:
        reason = f"at the end of the range looked at, {REACH:g} s"
    return Offset(float(best), not reason, height, spread, reason)


def _spectrum_witness(samples, lips, known, lags):
    """Sigmas above chance [1 + FOLDS, L] of lips predicted from the spectrum; None: no signal."""
    sound = _high_pass(_spectrum_rows(samples, len(lips)))
    if min(lips.std(0).min(), sound.std(0).max()) < 1e-6:
        return None
    far = int(FAR * RATE)
    parts = [_part_sums(sound, lips, known, lag) for lag in lags]
    curves = [[_score(p) for p in parts]]
    curves += [[_score(np.delete(p, k, 0)) for p in parts] for k in range(FOLDS)]
    chance = [
        _score(_part_sums(sound, lips, known, k))
        for k in np.linspace(far, len(lips) - far, 60).astype(int)
    ]
    return (np.array(curves) - np.mean(chance)) / (np.std(chance) + 1e-6)


def _predicted_rows(predicted, gauge, count):
    """Predicted lips [T, C] at `RATE`, earlier by `gauge` s [count, C]."""
    times = (np.arange(count) / RATE + gauge) * FPS
    return np.stack([np.interp(times, np.arange(len(c)), c) for c in predicted.T], 1)


def _prediction_witness(predicted, lips, known, lags):
    """Sigmas above chance [1 + FOLDS, L] of lips like the predicted ones; None: no signal.

    A few seconds have too few lags that cannot be right. What chance does follows from how long
    both curves stay like themselves: two that move slowly agree more easily (Bartlett).
    """
    if min(lips.std(0).min(), predicted.std(0).min()) < 1e-6:
        return None
    alike = _likeness(lips) * _likeness(predicted)
    variance = np.maximum(1 + 2 * alike[1:].sum(0), 1) / 4  # of the mean of two, times its rows
    curves = []
    for lag in lags:
        first, last = max(-lag, 0), len(lips) - max(lag, 0)
        z = np.concatenate([predicted[first + lag : last + lag], lips[first:last]], 1)
        seen = known[first:last]
        z = np.concatenate([np.ones((len(z), 1)), z], 1) * seen[:, None]
        parts = np.stack([part.T @ part for part in np.array_split(z, FOLDS)])
        sums = [parts.sum(0), *(np.delete(parts, k, 0).sum(0) for k in range(FOLDS))]
        sigma = np.sqrt(variance.sum() / max(seen.sum(), 1))
        curves.append([_correlation(total) / sigma for total in sums])
    return np.array(curves).T


def _correlation(total):
    """Mean correlation of predicted with real lips, from the sums of z z^T, z = (1, two, two)."""
    mean = total[0] / max(total[0, 0], 1)
    spread = total / max(total[0, 0], 1) - np.outer(mean, mean)
    deviation = np.sqrt(np.maximum(np.diag(spread), 1e-18))
    return float(np.mean([spread[k, k + 2] / (deviation[k] * deviation[k + 2]) for k in (1, 2)]))


def _likeness(rows):
    """Autocorrelation [M, C] of rows [R, C] at lags from 0 up to `MEMORY`."""
    rows, count = rows - rows.mean(0), len(rows)
    lags = range(min(int(MEMORY * RATE), count // 2))
    return np.stack([(rows[: count - k] * rows[k:]).sum(0) for k in lags]) / (rows**2).sum(0)


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
