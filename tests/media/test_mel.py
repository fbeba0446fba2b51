"""MFCC against the definition written as loops, mel filters and MFCC against packages."""

import itertools
import math

import numpy as np
import pytest

from fg3dgs_jax.media import mel


def _sound(seconds, seed=0):
    rng, time = np.random.default_rng(seed), np.arange(int(seconds * 16_000)) / 16_000
    voice = np.sin(2 * np.pi * (200 * time + 300 * time**2)) + 0.3 * rng.normal(size=len(time))
    return (6000 * voice * np.sin(np.pi * 3 * time) ** 2).astype(np.int16)


def _slow_mfcc(samples, coefficients):
    """From the definition, one frame, one filter and one coefficient at a time."""
    signal = [float(samples[0])]
    signal += [float(b) - 0.97 * float(a) for a, b in itertools.pairwise(samples)]
    rows = 1 if len(signal) <= 400 else 1 + math.ceil((len(signal) - 400) / 160)
    signal = np.pad(signal, (0, 400 + 160 * rows))
    mel_step = 2595 * math.log10(1 + 8000 / 700) / 27
    edges = [
        math.floor(513 * 700 * (10 ** (k * mel_step / 2595) - 1) / 16_000 + 1e-9) for k in range(28)
    ]
    out = np.zeros((rows, coefficients))
    for r in range(rows):
        power = np.abs(np.fft.fft(signal[160 * r : 160 * r + 400], 512)[:257]) ** 2 / 512
        logs = []
        for j in range(26):
            low, peak, high = edges[j : j + 3]
            band = sum(power[b] * (b - low) / (peak - low) for b in range(low, peak))
            band += sum(power[b] * (high - b) / (high - peak) for b in range(peak, high))
            logs.append(math.log(band or np.finfo(float).eps))
        for n in range(coefficients):
            total = sum(logs[j] * math.cos(math.pi * n * (2 * j + 1) / 52) for j in range(26))
            total *= math.sqrt((1 if n == 0 else 2) / 26)
            out[r, n] = total * (1 + 11 * math.sin(math.pi * n / 22))
        out[r, 0] = math.log(power.sum() or np.finfo(float).eps)
    return out


@pytest.mark.parametrize("coefficients", [13, 26])
@pytest.mark.parametrize("num_samples", [1, 399, 400, 401, 560, 561, 3100])
def test_mfcc_equals_the_definition(num_samples, coefficients):
    samples = _sound(1)[3000 : 3000 + num_samples].copy()
    samples[num_samples // 4 : num_samples // 2] = 0
    found = mel.mfcc(samples, coefficients)
    rows = 1 if num_samples <= 400 else 1 + -(-(num_samples - 400) // 160)
    assert found.shape == (rows, coefficients)
    np.testing.assert_allclose(found, _slow_mfcc(samples, coefficients), atol=1e-9)


@pytest.mark.parametrize("coefficients", [13, 26])
def test_mfcc_equals_python_speech_features(coefficients):
    package = pytest.importorskip("python_speech_features")
    samples = _sound(2.013)
    samples[8000:12000] = 0
    expected = package.mfcc(samples, 16_000, numcep=coefficients)
    assert expected.std() > 1
    np.testing.assert_allclose(mel.mfcc(samples, coefficients), expected, atol=1e-9)


def test_long_sound_is_cut_without_a_seam(monkeypatch):
    samples = _sound(1)
    whole = mel.mfcc(samples, 13)
    monkeypatch.setattr(mel, "_CHUNK", 7)
    np.testing.assert_allclose(mel.mfcc(samples, 13), whole, atol=1e-12)


def test_digital_silence_is_finite():
    assert np.isfinite(mel.mfcc(np.zeros(2000, np.int16), 26)).all()


def test_floats_become_whole_numbers():
    samples = _sound(0.1)
    np.testing.assert_array_equal(mel.as_int16(samples / np.float32(32768)), samples)
    np.testing.assert_array_equal(mel.as_int16(np.array([1.5, -1.5])), [32767, -32768])


def test_wrong_sound_is_refused():
    for samples in (np.zeros(400), np.zeros((2, 400), np.int16), np.zeros(0, np.int16)):
        with pytest.raises(ValueError, match=r"expected int16 \[n\], 16 kHz mono"):
            mel.mfcc(samples, 13)
    with pytest.raises(ValueError, match="coefficients is 27; expected 1 to 26"):
        mel.mfcc(np.zeros(400, np.int16), 27)


@pytest.mark.parametrize("kept", ("nothing", "whole", "damaged", "a folder that cannot be made"))
def test_filters_are_librosas_and_stay_in_the_cache(tmp_path, monkeypatch, kept):
    librosa = pytest.importorskip("librosa")
    cache = tmp_path / "cache"
    monkeypatch.setattr(mel.platformdirs, "user_cache_path", lambda *_, **__: cache)
    setting = (16_000, 800, 80, 55.0, 7600.0)
    expected = librosa.filters.mel(sr=16_000, n_fft=800, n_mels=80, fmin=55.0, fmax=7600.0)
    make = mel.filterbank.__wrapped__
    if kept == "a folder that cannot be made":
        cache.write_text("")
    elif kept != "nothing":
        make(*setting)
        (file,) = (cache / "filters").iterdir()
        if kept == "damaged":
            file.write_bytes(file.read_bytes()[:-40])
        else:  # librosa is not asked again
            monkeypatch.setattr(librosa.filters, "mel", None)
    np.testing.assert_array_equal(make(*setting), expected)
