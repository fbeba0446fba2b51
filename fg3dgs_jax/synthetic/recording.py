"""How clean speech sounds in a recording: rooms, microphones, noise, and sounds that nobody speaks.

All samples are float [n] at 16 kHz.
"""

from collections.abc import Sequence

import numpy as np

from fg3dgs_jax.media.clock import SAMPLE_RATE


def resample(samples: np.ndarray, ratio: float) -> np.ndarray:
    """Plays sound `ratio` times as fast: shorter, higher, a smaller head.

    Args:
      samples: [n].
      ratio: above 1 is faster. What would pass half the sampling rate is taken away.

    Returns:
      [round(n / ratio)].
    """
    count = round(len(samples) / ratio)
    size = _fast_length(len(samples))
    spectrum = np.fft.rfft(samples, size)
    if ratio > 1:
        spectrum[int(len(spectrum) * 0.98 / ratio) :] = 0
    fine = 4  # times as dense before a line between two samples is good enough
    dense = np.fft.irfft(spectrum, size * fine) * fine
    return np.interp(np.arange(count) * ratio * fine, np.arange(len(dense)), dense)


def reverberate(
    samples: np.ndarray, rng: np.random.Generator, seconds: float, direct: float
) -> np.ndarray:
    """Speech in a room of exponentially falling noise.

    Args:
      samples: [n].
      rng: chooses the room.
      seconds: until the echo has fallen by 60 dB.
      direct: energy of the direct sound over that of the echo.

    Returns:
      [n].
    """
    count = int(seconds * SAMPLE_RATE)
    times = np.arange(count) / SAMPLE_RATE
    tail = rng.normal(size=count) * 10 ** (-3 * times / seconds)
    tail[: int(0.002 * SAMPLE_RATE)] = 0
    tail *= np.sqrt(1 / (direct * np.sum(tail**2) + 1e-12))
    tail[0] = 1.0
    return convolve(samples, tail)


def equalise(samples: np.ndarray, rng: np.random.Generator, depth_db: float) -> np.ndarray:
    """A microphone: a smooth random curve over frequency, and limits at both ends.

    Args:
      samples: [n].
      rng: chooses the curve, a low limit of 50 to 250 Hz and a high one of 3.5 to 8 kHz.
      depth_db: deviation of the curve at its knots, an octave or so apart.

    Returns:
      [n].
    """
    size = _fast_length(len(samples))
    hertz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    knots = np.log2([60, 125, 250, 500, 1000, 2000, 3000, 4000, 6000, 8000])
    curve = np.interp(np.log2(hertz + 1), knots, rng.normal(size=len(knots)) * depth_db)
    low, high = rng.uniform(50, 250), rng.choice([3500, 4000, 5500, 7000, 8000, 8000])
    gain = 10 ** (curve / 20) / np.sqrt(1 + (low / (hertz + 1)) ** 4)
    gain /= np.sqrt(1 + (hertz / high) ** 24)
    return np.fft.irfft(np.fft.rfft(samples, size) * gain, size)[: len(samples)]


def coloured_noise(count: int, rng: np.random.Generator, slope: float) -> np.ndarray:
    """Noise of deviation 1 whose power falls by `slope` x 3 dB an octave: 0 white, 1 pink."""
    size = _fast_length(count)
    hertz = np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), 40.0)
    spectrum = np.fft.rfft(rng.normal(size=size)) * hertz ** (-0.5 * slope)
    noise = np.fft.irfft(spectrum, size)[:count]
    return noise / max(noise.std(), 1e-9)


def music(count: int, rng: np.random.Generator) -> np.ndarray:
    """Chords of plucked and held tones with overtones, of deviation 1."""
    out = np.zeros(count)
    beat = int(rng.uniform(0.2, 0.6) * SAMPLE_RATE)
    root = rng.uniform(80, 220)
    for start in range(0, count, beat):
        length = min(int(beat * rng.uniform(1, 4)), count - start)
        times = np.arange(length) / SAMPLE_RATE
        fall = np.exp(-times * rng.choice([0.5, 3.0, 8.0]))
        for step in rng.choice([0, 3, 4, 5, 7, 9, 12, 16, 19, 24], size=rng.integers(1, 4)):
            pitch = root * 2 ** (step / 12)
            for overtone in range(1, rng.integers(2, 9)):
                if pitch * overtone < 0.48 * SAMPLE_RATE:
                    phase = 2 * np.pi * (pitch * overtone * times + rng.uniform())
                    out[start : start + length] += fall * np.sin(phase) / overtone
        if rng.uniform() < 0.4:  # a drum
            hit = rng.normal(size=length) * np.exp(-times * 30) * 2
            out[start : start + length] += hit
    return out / max(out.std(), 1e-9)


def bursts(count: int, rng: np.random.Generator) -> np.ndarray:
    """Coughs, knocks and claps: short bursts of coloured noise, silence between; peak 1."""
    out = np.zeros(count)
    at = int(rng.uniform(0, 0.5) * SAMPLE_RATE)
    while at < count - 1600:
        length = min(int(rng.uniform(0.02, 0.3) * SAMPLE_RATE), count - at)
        times = np.arange(length) / SAMPLE_RATE
        shape = np.minimum(times / 0.005, 1) * np.exp(-times * rng.uniform(8, 60))
        out[at : at + length] += shape * coloured_noise(length, rng, rng.uniform(0, 2))
        at += length + int(rng.uniform(0.1, 1.0) * SAMPLE_RATE)
    return out / max(np.abs(out).max(), 1e-9)


def mixed(samples: np.ndarray, noise: np.ndarray, ratio_db: float, level: float) -> np.ndarray:
    """Samples and noise that is `ratio_db` below `level`, the speech's RMS."""
    scale = level * 10 ** (-ratio_db / 20) / max(noise.std(), 1e-9)
    return samples + scale * noise


def convolve(samples: np.ndarray, response: Sequence[float] | np.ndarray) -> np.ndarray:
    """Samples [n] through a response, cut to [n]."""
    size = _fast_length(len(samples) + len(response))
    spectrum = np.fft.rfft(samples, size) * np.fft.rfft(response, size)
    return np.fft.irfft(spectrum, size)[: len(samples)]


def _fast_length(count):
    """A length of a few small factors, so that the transform is quick."""
    power = 1 << max(int(np.ceil(np.log2(max(count, 1)))) - 2, 0)
    return power * -(-count // power) if power else count
