"""Mel spectrum arithmetic in NumPy, shared by the audio features and the Whisper front end.

librosa is not imported at run time: its first call compiles for many seconds; a test compares the
two.
"""

import functools

import numpy as np

_CHUNK = 2048  # columns per FFT call: bounds the memory of an hour of sound


def hz_to_mel(hz):
    """Slaney's scale: linear below 1 kHz (15 mel), logarithmic above (27 steps per factor 6.4)."""
    hz = np.asarray(hz, np.float64)
    log_part = 15.0 + 27.0 * np.log(np.maximum(hz, 1000.0) / 1000.0) / np.log(6.4)
    return np.where(hz < 1000.0, hz * 3.0 / 200.0, log_part)


def mel_to_hz(mel):
    mel = np.asarray(mel, np.float64)
    return np.where(
        mel < 15.0, mel * 200.0 / 3.0, 1000.0 * np.exp((mel - 15.0) * np.log(6.4) / 27.0)
    )


@functools.cache
def filterbank(sample_rate, n_fft, num_mels, fmin, fmax):
    """float32 [num_mels, n_fft // 2 + 1]: triangles of unit area (Slaney) on the mel scale."""
    corners = mel_to_hz(np.linspace(hz_to_mel(fmin), hz_to_mel(fmax), num_mels + 2))
    low, centre, high = (corners[i : i + num_mels, None] for i in range(3))
    freqs = np.linspace(0.0, sample_rate / 2.0, n_fft // 2 + 1)[None]
    triangles = np.minimum((freqs - low) / (centre - low), (high - freqs) / (high - centre))
    return (np.maximum(triangles, 0.0) * 2.0 / (high - low)).astype(np.float32)


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
