"""Sounds that no lips make, for a lip prior to learn that they move none."""

from collections.abc import Iterator

import numpy as np

from fg3dgs_jax.media.clock import SAMPLE_RATE

LEVEL = 0.1  # RMS of full scale, as loud as levelled speech


def sounds(rng: np.random.Generator, count: int, seconds: float = 2.0) -> Iterator[np.ndarray]:
    """Yields int16 samples at 16 kHz: silence, white and pink noise, chords, drums, coughs in turn.

    Args:
      rng: is drawn from.
      count: how many.
      seconds: the length of each.
    """
    length = round(seconds * SAMPLE_RATE)
    makers = (_silence, _white, _pink, _chords, _drums, _cough)
    for number in range(count):
        sound = makers[number % len(makers)](rng, length)
        level = LEVEL * 10 ** rng.uniform(-1.0, 0.1)
        sound = level * sound / max(np.sqrt(np.mean(np.square(sound))), 1e-6)
        if number % len(makers) == 0:
            sound = sound * 10 ** rng.uniform(-4.0, -1.5)  # a room that is not quite silent
        yield (np.clip(sound, -1.0, 1.0) * 32767).astype(np.int16)


def _silence(rng, length):
    return _pink(rng, length)


def _white(rng, length):
    return rng.normal(size=length)


def _pink(rng, length):
    spectrum = np.fft.rfft(rng.normal(size=length))
    return np.fft.irfft(spectrum / np.sqrt(np.arange(1, len(spectrum) + 1)), length)


def _chords(rng, length):
    """Three or four notes with overtones, another chord every half second or so."""
    time = np.arange(length) / SAMPLE_RATE
    beat = rng.uniform(0.3, 0.8)
    sound = np.zeros(length)
    for start in np.arange(0.0, length / SAMPLE_RATE, beat):
        later = np.maximum(time - start, 0.0)
        shape = (time >= start) * np.exp(-later / rng.uniform(0.2, 1.0))
        for note in rng.choice(np.arange(36, 76), rng.integers(2, 5), replace=False):
            pitch = 440.0 * 2 ** ((note - 69) / 12)
            for overtone in range(1, 6):
                phase = rng.uniform(0, 2 * np.pi)
                wave = np.sin(2 * np.pi * pitch * overtone * time + phase)
                sound += shape * wave / overtone ** rng.uniform(1.0, 2.0)
    return sound


def _drums(rng, length):
    """Bursts of noise and falling tones on a beat."""
    time = np.arange(length) / SAMPLE_RATE
    beat = rng.uniform(0.15, 0.4)
    sound = 1e-3 * rng.normal(size=length)
    for start in np.arange(0.0, length / SAMPLE_RATE, beat):
        later = np.maximum(time - start, 0.0)
        shape = (time >= start) * np.exp(-later / rng.uniform(0.02, 0.12))
        if rng.random() < 0.5:
            sound += shape * rng.normal(size=length)
        else:
            pitch = rng.uniform(50, 120)
            sound += 2 * shape * np.sin(2 * np.pi * pitch * later * (1 + np.exp(-20 * later)))
    return sound


def _cough(rng, length):
    """A burst of coloured noise, once or twice."""
    time = np.arange(length) / SAMPLE_RATE
    sound = 1e-3 * rng.normal(size=length)
    for _ in range(rng.integers(1, 3)):
        start, fall = rng.uniform(0.1, length / SAMPLE_RATE - 0.3), rng.uniform(0.05, 0.15)
        shape = (time >= start) * np.exp(-np.maximum(time - start, 0.0) / fall)
        sound += shape * np.convolve(rng.normal(size=length), rng.normal(size=12), "same")
    return sound
