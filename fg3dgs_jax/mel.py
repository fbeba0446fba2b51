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


def wav2lip_columns(samples):
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
