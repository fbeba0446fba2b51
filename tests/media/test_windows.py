"""Feature windows: the spectrum against torch, the alignment of window i with frame i, edges."""

import numpy as np
import pytest

from fg3dgs_jax.media import mel
from fg3dgs_jax.media import windows as windows_lib


def _noise(n, seed=0):
    return (np.random.default_rng(seed).normal(size=n) * 3000).astype(np.int16)


def test_spectrum_equals_torchs():
    torch = pytest.importorskip("torch")
    samples = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    ours = mel.spectrum(samples, n_fft=800, hop=200)
    theirs = torch.stft(
        torch.tensor(samples),
        800,
        200,
        window=torch.hann_window(800),
        return_complex=True,
        pad_mode="reflect",
    )
    np.testing.assert_allclose(ours, theirs.abs().numpy().T, atol=1e-3)


def test_mel_columns_follow_the_definition_written_out():
    samples = _noise(4000)
    x = samples.astype(np.float64) / 32768
    x = np.concatenate([x[:1], x[1:] - 0.97 * x[:-1]])
    k = 9
    segment = x[200 * k - 400 : 200 * k + 400] * np.hanning(801)[:800]
    angles = np.exp(-2j * np.pi * np.outer(np.arange(401), np.arange(800)) / 800)
    power = mel.filterbank(16_000, 800, 80, 55.0, 7600.0) @ np.abs(angles @ segment)
    expected = np.clip(8 * (20 * np.log10(np.maximum(1e-5, power)) - 20 + 100) / 100 - 4, -4, 4) / 4
    np.testing.assert_allclose(windows_lib.mel_columns(samples)[k], expected, atol=1e-5)


@pytest.mark.parametrize("frame", [0, 1, 2, 7, 23, 49])
def test_a_click_in_the_middle_of_a_frame_lies_in_the_middle_of_its_window(frame):
    samples = np.zeros(50 * 640, np.int16)
    samples[640 * frame + 320] = 20_000
    window = windows_lib.mel_windows(samples, 50)[frame].astype(np.float64) + 1.0
    loud = np.nonzero(window.sum(1) > 0)[0]  # the click reaches the columns within 400 samples
    assert abs(loud.mean() - 7.5) <= 0.5
    assert len(loud) <= 5


def test_windows_are_silent_outside_the_sound_and_equal_to_columns_inside():
    samples = _noise(10 * 640)
    windows, columns = windows_lib.mel_windows(samples, 20), windows_lib.mel_columns(samples)
    assert windows.shape == (20, 16, 80) and windows.dtype == np.float32
    assert windows.min() >= -1 and windows.max() <= 1
    assert (windows[0, :6] == windows_lib.SILENCE).all() and (windows[0, 6:] == columns[:10]).all()
    assert (windows[15:] == windows_lib.SILENCE).all()
    assert (windows_lib.mel_windows(np.zeros(6400, np.int16), 10) == windows_lib.SILENCE).all()
    assert (windows_lib.mel_windows(np.zeros(0, np.int16), 3) == windows_lib.SILENCE).all()


def test_loudness_scale_and_float_samples():
    samples = _noise(6400)
    np.testing.assert_allclose(
        windows_lib.mel_windows(samples / 32768.0, 10),
        windows_lib.mel_windows(samples, 10),
        atol=1e-5,
    )
    quieter = windows_lib.mel_columns(samples / 327680.0)  # -20 dB is -0.4 where nothing is clipped
    np.testing.assert_allclose(windows_lib.mel_columns(samples) - quieter, 0.4, atol=1e-4)
    with pytest.raises(ValueError, match="expected \\[n\\]"):
        windows_lib.mel_windows(np.zeros((2, 100)), 1)


def test_whisper_windows_pair_rows_and_pad():
    features = np.arange(7, dtype=np.float32)[:, None] * np.ones((1, 384), np.float32)
    windows = windows_lib.whisper_windows(features, 5)
    np.testing.assert_array_equal(windows[:, :, 0], [[0, 1], [2, 3], [4, 5], [6, 0], [0, 0]])
    np.testing.assert_array_equal(
        windows_lib.whisper_windows(features, 2)[:, :, 5], [[0, 1], [2, 3]]
    )


def test_slices_hold_rows_minus_four_to_plus_three_with_zeros_outside():
    features = (1 + np.arange(10, dtype=np.float32))[:, None, None] * np.ones((1, 2, 3), np.float32)
    np.testing.assert_array_equal(
        windows_lib.slice_windows(features, 0)[:, 0, 0], [0, 0, 0, 0, 1, 2, 3, 4]
    )
    np.testing.assert_array_equal(
        windows_lib.slice_windows(features, 9)[:, 1, 2], [6, 7, 8, 9, 10, 0, 0, 0]
    )
    assert windows_lib.slice_windows(features, np.arange(10)).shape == (10, 8, 2, 3)
    np.testing.assert_array_equal(
        windows_lib.slice_windows(features, np.array([4]))[0],
        windows_lib.slice_windows(features, 4),
    )


def test_frames_cover_all_samples():
    assert [windows_lib.num_frames_of(np.zeros(n)) for n in (0, 1, 640, 641)] == [0, 1, 1, 2]
