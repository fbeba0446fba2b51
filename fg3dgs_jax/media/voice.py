"""Where a voice speaks: a map from 0 to 1, by which silence, noise, music and coughs move no lips.

Three things are asked of every 10 ms, from a fixed window of sound, so that a stream gives the same
numbers as a file:

- Is it louder than the quietest and near the loudest of the last second?
- Does the shape of its spectrum change as fast as a mouth does? That of noise stays the same, that
  of chords and tones changes in rare steps.
- Is part of it voiced? Clicks, rustle and coughs are not.

A frame counts from a little before a voice begins. It still counts for 0.2 s after the end and
fades in 0.3 s more, for lips stay open in short pauses. Whispers count as noise. Singing, and drums
with chords, count as voices.
"""

import numpy as np

from fg3dgs_jax.media import mel
from fg3dgs_jax.media.clock import FPS, SAMPLE_RATE

PAST, AHEAD = 1.5, 0.24  # s of sound that a frame's value depends on, about the frame's start
SILENCE_DB = -55.0  # dBFS, of levelled sound: nothing quieter is speech
FLOOR_DB = -100.0  # dBFS of digital silence, which is also what lies before the first sample
RANGE_DB = 35.0  # below the loudest moment: nothing quieter is speech
ABOVE_FLOOR_DB = 4.0  # above the quietest moments: nothing nearer to them is speech
CHANGE_DB = (2.0, 2.5)  # of the bands in 80 ms: noise and music stay below, speech above
MOST_DB = 4.0  # a change beyond it counts as that, lest single steps do
VOICED = 0.5  # of a sound's energy that repeats itself
VOICED_SHARE = (0.05, 0.15)  # of the active moments: clicks stay below, speech above

_HOP = SAMPLE_RATE // 100  # 10 ms, a block
_LEVEL_SPAN = 98, 0  # blocks before and after, in which loud and quiet are looked for
_SPAN = 50, 12  # blocks before and after, over which change and voicing are averaged
_NEAR = 20, 14  # blocks before and after, in which something must be heard
_LAG = 8  # blocks between the spectra that are compared
# Of the frames after the last word.
_FALL = np.cos(np.linspace(0, np.pi, 9)[:8]) / 2 + 0.5
_BANDS = 16
_CHUNK = 4096  # blocks at a time: bounds the memory of an hour of sound


def voice_map(samples: np.ndarray, num_frames: int) -> np.ndarray:
    """Says how surely a voice is heard in each frame.

    Args:
      samples: [n] int16 or float, 16 kHz, at the common level (`loudness.apply_gain`).
      num_frames: T, at 25 a second. Sound that is missing is silence.

    Returns:
      float32 [T] from 0 (no voice) to 1. Row i depends on the sound from `PAST` s before the start
      of frame i to `AHEAD` s after it.
    """
    if not num_frames:
        return np.zeros(0, np.float32)
    per_frame = SAMPLE_RATE // FPS // _HOP
    count = num_frames * per_frame + sum(_SPAN) + _LAG  # blocks, with what is looked ahead to
    samples = mel.as_float(samples)[: count * _HOP]
    samples = np.pad(samples, (0, count * _HOP - len(samples)))
    bands, voiced = _analysis(samples)
    level = 10 * np.log10(_mean(bands.sum(1)[:, None], 1, 1)[:, 0] + 1e-10) - FLOOR_DB
    loud = _over(level, _LEVEL_SPAN, np.max)
    quiet = _over(level, _LEVEL_SPAN, lambda rows, axis: np.percentile(rows, 10, axis=axis))
    active = level > np.maximum(
        np.maximum(SILENCE_DB - FLOOR_DB, loud - RANGE_DB), quiet + ABOVE_FLOOR_DB
    )
    number = _mean(active[:, None], *_SPAN)[:, 0] + 1e-6
    change = _mean((active * np.minimum(_change(bands), MOST_DB))[:, None], *_SPAN)[:, 0] / number
    share = _mean((active & (voiced > VOICED))[:, None], *_SPAN)[:, 0] / number
    voice = _ramp(change, CHANGE_DB) * _ramp(share, VOICED_SHARE)
    voice = voice * _over(active.astype(np.float32), _NEAR, np.max)
    voice = voice[: num_frames * per_frame].reshape(num_frames, per_frame).mean(1)
    faded = np.pad(voice, (len(_FALL) - 1, 0))
    views = np.lib.stride_tricks.sliding_window_view(faded, len(_FALL))
    return (views * _FALL[::-1]).max(1, initial=0.0).astype(np.float32)


def _ramp(values, ends):
    """0 below the first of `ends`, 1 above the second."""
    return np.clip((values - ends[0]) / (ends[1] - ends[0]), 0, 1)


def _analysis(samples):
    """Power in bands [n, BANDS] and how much repeats itself [n] in every 10 ms of samples."""
    size, long = 512, 800  # samples of the spectrum, and of the search for a period
    count = len(samples) // _HOP
    padded = np.pad(samples, long)
    window, wide = np.hanning(size), np.hanning(long)
    # As much as a constant tone would have of a window that is moved against itself.
    fade = np.fft.irfft(np.abs(np.fft.rfft(wide, 2048)) ** 2)[: _PERIODS.stop]
    keep = (_LONG_BINS > 60) & (_LONG_BINS < 1200)
    bands, voiced = np.empty((count, _BANDS)), np.empty(count)
    first = np.arange(count) * _HOP + _HOP // 2 + long
    for start in range(0, count, _CHUNK):
        rows = first[start : start + _CHUNK, None]
        part = padded[rows + np.arange(-size // 2, size // 2)] * window
        power = np.abs(np.fft.rfft(part)) ** 2 / (window**2).sum() / (size / 2)
        bands[start : start + _CHUNK] = power @ _WEIGHTS
        part = padded[rows + np.arange(-long // 2, long // 2)] * wide
        period = np.fft.irfft(np.abs(np.fft.rfft(part, 2048)) ** 2 * keep)[:, : _PERIODS.stop]
        period = period / (period[:, :1] + 1e-9) / (fade / fade[0])
        voiced[start : start + _CHUNK] = period[:, _PERIODS].max(1)
    return bands, voiced


def _band_weights(size):
    """[size // 2 + 1, BANDS]: triangles, evenly on the mel scale from 100 to 7000 Hz."""
    scale = 2595 * np.log10(1 + np.fft.rfftfreq(size, 1 / SAMPLE_RATE) / 700)
    low, high = 2595 * np.log10(1 + np.array([100, 7000]) / 700)
    edges = np.linspace(low, high, _BANDS + 2)
    return np.clip(1 - np.abs(scale[:, None] - edges[1:-1]) / (edges[1] - edges[0]), 0, None)


_WEIGHTS = _band_weights(512)
_LONG_BINS = np.fft.rfftfreq(2048, 1 / SAMPLE_RATE)
_PERIODS = slice(SAMPLE_RATE // 400, SAMPLE_RATE // 70)  # 70 to 400 Hz


def _change(bands):
    """By how many dB [n] the spectrum's shape differs from 40 ms before to 40 ms after."""
    decibels = 10 * np.log10(_mean(bands, 2, 2) + 1e-8)
    decibels = np.maximum(decibels, decibels.max(1, keepdims=True) - 40)
    difference = np.pad(decibels, ((_LAG // 2, _LAG // 2), (0, 0)), mode="edge")
    difference = difference[_LAG:] - difference[:-_LAG]
    return np.abs(difference - difference.mean(1, keepdims=True)).mean(1)


def _mean(rows, before, after):
    """Rows [n, C], each the mean of itself, `before` rows and `after` rows; silence outside."""
    total = np.cumsum(np.pad(rows.astype(np.float64), ((before + 1, after), (0, 0))), 0)
    return np.maximum(total[before + after + 1 :] - total[: -before - after - 1], 0) / (
        before + after + 1
    )


def _over(values, span, what):
    """What [n] becomes of each value and those `span` before and after; 0 outside."""
    views = np.lib.stride_tricks.sliding_window_view(np.pad(values, span), sum(span) + 1)
    return np.concatenate(
        [what(views[k : k + _CHUNK], axis=1) for k in range(0, len(views), _CHUNK)]
    )
