"""Mel spectra and cepstra, shared by the audio features and the networks that hear.

The filters are librosa's. Its STFT is not used, for its first call compiles for 20 s.
"""

import contextlib
import functools
import importlib.metadata

import numpy as np
import platformdirs

from fg3dgs_jax.media.whole_files import whole

_CHUNK = 2048  # columns per FFT call: bounds the memory of an hour of sound
_FRAME_LENGTH, _HOP, _FFT, _FILTERS, _LIFTER = 400, 160, 512, 26, 22  # of the MFCC


@functools.cache
def filterbank(sample_rate: int, n_fft: int, num_mels: int, fmin: float, fmax: float) -> np.ndarray:
    """float32 [num_mels, n_fft // 2 + 1]: triangles of unit area (Slaney) on the mel scale.

    librosa takes seconds to import, so what it made stays in the user's cache.
    """
    setting = f"{sample_rate}_{n_fft}_{num_mels}_{fmin:g}_{fmax:g}"
    name = f"mel_{setting}_librosa_{importlib.metadata.version('librosa')}.npy"
    path = platformdirs.user_cache_path("fg3dgs", appauthor=False) / "filters" / name
    with contextlib.suppress(OSError, ValueError, EOFError):
        kept = np.load(path)
        if kept.shape == (num_mels, n_fft // 2 + 1) and kept.dtype == np.float32:
            return kept
    import librosa  # here, for the reason above

    filters = librosa.filters.mel(
        sr=sample_rate, n_fft=n_fft, n_mels=num_mels, fmin=fmin, fmax=fmax
    )
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as part:
            np.save(part, filters)
    return filters


def spectrum(samples: np.ndarray, n_fft: int, hop: int) -> np.ndarray:
    """Samples [n] -> magnitudes float32 [1 + n // hop, n_fft // 2 + 1], column k at sample k * hop.

    Periodic Hann window of n_fft samples, edges reflected.
    """
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(n_fft) / n_fft)
    padded = np.pad(samples, n_fft // 2, mode="reflect" if len(samples) > 1 else "edge")
    views = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop]
    out = np.empty((len(views), n_fft // 2 + 1), np.float32)
    for start in range(0, len(views), _CHUNK):
        out[start : start + _CHUNK] = np.abs(np.fft.rfft(views[start : start + _CHUNK] * window))
    return out


def as_float(samples: np.ndarray) -> np.ndarray:
    """int16 or float samples [n] -> float32 in [-1, 1]."""
    samples = np.asarray(samples)
    if samples.ndim != 1:
        raise ValueError(
            f"samples have shape {samples.shape}; expected [n], 16 kHz mono: read them with "
            "media.video.read_audio"
        )
    if np.issubdtype(samples.dtype, np.integer):
        return samples.astype(np.float32) / 32768.0
    return samples.astype(np.float32)


def as_int16(samples: np.ndarray) -> np.ndarray:
    """int16, or float samples [n] in [-1, 1] -> int16, for networks that know loudness so."""
    samples = np.asarray(samples)
    if samples.dtype == np.int16 and samples.ndim == 1:
        return samples
    return np.rint(np.clip(as_float(samples) * 32768.0, -32768, 32767)).astype(np.int16)


def wav2lip_columns(samples: np.ndarray) -> np.ndarray:
    """16 kHz samples [n > 0] -> float32 [1 + n // 200, 80] in [-4, 4], column k centred on k/80 s.

    The mel of Wav2Lip and of the SyncTalk encoder: pre-emphasis 0.97, 800-point STFT with hop 200
    (Hann, edges reflected), magnitudes, 80 Slaney bands over 55-7600 Hz, 20 log10 - 20 dB, -100..0
    dB mapped to -4..4.
    """
    samples = as_float(samples)
    emphasised = np.append(samples[:1], samples[1:] - np.float32(0.97) * samples[:-1])
    magnitudes = spectrum(emphasised, n_fft=800, hop=200)
    bands = magnitudes @ filterbank(16_000, 800, 80, 55.0, 7600.0).T
    decibels = 20.0 * np.log10(np.maximum(1e-5, bands)) - 20.0
    return np.clip(8.0 * (decibels + 100.0) / 100.0 - 4.0, -4.0, 4.0).astype(np.float32)


def mfcc(samples: np.ndarray, coefficients: int) -> np.ndarray:
    """int16 samples [n > 0] at 16 kHz -> MFCC float64 [T, coefficients <= 26], 100 rows a second.

    The constants of python_speech_features: pre-emphasis 0.97; 25 ms frames, zeros after the end,
    no window function; power of a 512-point FFT over 512; 26 triangles even on the mel scale over
    0-8000 Hz; their logarithms' orthonormal DCT, liftered; instead of the first coefficient the
    logarithm of the frame's whole power.
    """
    samples = np.asarray(samples)
    if samples.ndim != 1 or samples.dtype != np.int16 or not len(samples):
        raise ValueError(
            f"samples are {samples.dtype} {samples.shape}; expected int16 [n], 16 kHz mono: the "
            "network knows loudness in these units"
        )
    if not 1 <= coefficients <= _FILTERS:
        raise ValueError(f"coefficients is {coefficients}; expected 1 to {_FILTERS}")
    signal = samples.astype(np.float64)
    signal = np.append(signal[:1], signal[1:] - 0.97 * signal[:-1])
    rows = 1 + max(0, -(-(len(signal) - _FRAME_LENGTH) // _HOP))
    padded = np.pad(signal, (0, (rows - 1) * _HOP + _FRAME_LENGTH - len(signal)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME_LENGTH)[::_HOP]
    lifter = 1 + _LIFTER / 2 * np.sin(np.pi * np.arange(coefficients) / _LIFTER)
    cosines = lifter[:, None] * _cosines()[:coefficients]
    out = np.empty((rows, coefficients))
    for start in range(0, rows, _CHUNK):
        power = np.abs(np.fft.rfft(frames[start : start + _CHUNK], _FFT)) ** 2 / _FFT
        part = out[start : start + _CHUNK]
        part[:] = _log(power @ _triangles().T) @ cosines.T
        part[:, 0] = _log(power.sum(1))
    return out


def _log(x):
    """ln, of zeros that of the smallest step of a float64, as the reference features have it."""
    return np.log(np.where(x == 0, np.finfo(np.float64).eps, x))


@functools.cache
def _triangles():
    """[26, 257]: filters whose corners are rounded down to bins, evenly spaced in mel."""
    mels = np.linspace(0.0, 2595.0 * np.log10(1.0 + 8000.0 / 700.0), _FILTERS + 2)
    corners = np.floor((_FFT + 1) * 700.0 * (10.0 ** (mels / 2595.0) - 1.0) / 16_000)
    low, peak, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    bins = np.arange(_FFT // 2 + 1)
    rising = (bins - low) / (peak - low)
    falling = (high - bins) / (high - peak)
    return np.where(bins < peak, np.maximum(rising, 0.0), np.maximum(falling, 0.0))


@functools.cache
def _cosines():
    """[26, 26]: the orthonormal DCT-II."""
    angles = np.pi * np.outer(np.arange(_FILTERS), np.arange(_FILTERS) + 0.5) / _FILTERS
    scale = np.where(np.arange(_FILTERS) == 0, 1.0, 2.0)[:, None] / _FILTERS
    return np.sqrt(scale) * np.cos(angles)
