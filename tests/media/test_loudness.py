"""Voice activity and level, on sound made here and on the real clips."""

import os
import pathlib

import numpy as np
import pytest

from fg3dgs_jax.media import loudness, video

ROOT = pathlib.Path(__file__).resolve().parents[2]
MATERIAL = pathlib.Path(os.environ.get("FG3DGS_TEST_DATA", ROOT.parent / "shared"))
RATE = 16_000


def _talk(seconds=10, level=0.1, noise=0.001):
    """Bursts of noise with syllables at 4 Hz: 2 s spoken, 1 s silent."""
    time = np.arange(seconds * RATE) / RATE
    spoken = (time % 3) < 2
    loud = level * spoken * (0.35 + 0.65 * np.sin(np.pi * 4 * time) ** 2)
    rng = np.random.default_rng(0)
    samples = (loud + noise) * rng.normal(size=len(time))
    return np.clip(np.rint(32768 * samples), -32768, 32767).astype(np.int16), spoken


def test_the_map_follows_the_bursts_and_not_the_syllables():
    samples, spoken = _talk()
    found = loudness.speech_map(samples, 250)
    truth = spoken.reshape(250, -1).mean(1) > 0.5
    assert found.shape == (250,) and (found == truth).mean() > 0.97
    assert np.abs(np.diff(found.astype(int))).sum() == np.abs(np.diff(truth.astype(int))).sum()


def test_the_map_does_not_depend_on_the_level():
    samples, _ = _talk(level=0.2)
    quiet = np.rint(samples / 8).astype(np.int16)
    assert (loudness.speech_map(samples, 250) == loudness.speech_map(quiet, 250)).mean() > 0.99


def test_silence_and_short_sound_are_no_speech():
    assert not loudness.speech_map(np.zeros(RATE, np.int16), 25).any()
    assert loudness.speech_map(np.zeros(10, np.int16), 3).tolist() == [False] * 3
    click = np.zeros(RATE, np.int16)
    click[8000:8100] = 20_000
    assert not loudness.speech_map(click, 25).any()
    assert loudness.gain_db(np.zeros(RATE, np.int16)) == 0.0


@pytest.mark.parametrize("level", [0.01, 0.05, 0.3])
def test_levelled_speech_has_the_common_level_and_asks_for_no_more(level):
    samples, spoken = _talk(level=level)
    gain = loudness.gain_db(samples)
    out = loudness.apply_gain(samples, gain)
    assert out.dtype == np.int16 and np.abs(out.astype(int)).max() <= 32767
    rms = 20 * np.log10(np.sqrt(np.mean((out[spoken] / 32768.0) ** 2)))
    assert abs(rms - loudness.TARGET_DB) < 1.0 or gain == loudness.MAX_GAIN_DB
    assert abs(loudness.gain_db(out)) <= 0.1 or gain == loudness.MAX_GAIN_DB


def test_a_clap_is_not_clipped():
    samples, _ = _talk(level=0.01)
    samples[100] = 30_000
    gain = loudness.gain_db(samples)
    assert 0 <= gain < 1 and np.abs(loudness.apply_gain(samples, gain).astype(int)).max() < 32_700


@pytest.mark.parametrize("name", ["obama", "french", "lieu256"])
def test_real_clips_are_mostly_speech(name):
    path = MATERIAL / "data" / "videos" / f"{name}.mp4"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    samples = video.read_audio(path)
    assert 0.6 < loudness.speech_map(samples, len(samples) // 640).mean() < 0.95
    assert abs(loudness.gain_db(samples)) < 6
