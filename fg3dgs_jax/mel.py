"""Mel spectra, shared by the audio features and the Whisper front end.

The filters are librosa's; its STFT is not used, for its first call compiles for 20 s.
"""

import functools

import numpy as np

_CHUNK = 2048  # columns per FFT call: bounds the memory of an hour of sound


@functools.cache
def filterbank(sample_rate, n_fft, num_mels, fmin, fmax):
    """float32 [num_mels, n_fft // 2 + 1]: triangles of unit area (Slaney) on the mel scale."""
    import librosa  # here, for it takes seconds

    return librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=num_mels, fmin=fmin, fmax=fmax)


def spectrum(samples, n_fft, hop):
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


def as_float(samples):
    """int16 or float samples [n] -> float32 in [-1, 1]."""
    samples = np.asarray(samples)
    if samples.ndim != 1:
        raise ValueError(
            f"samples have shape {samples.shape}; expected [n], 16 kHz mono: read them with "
            "data.video.read_audio"
        )
    if np.issubdtype(samples.dtype, np.integer):
        return samples.astype(np.float32) / 32768.0
    return samples.astype(np.float32)
