"""Rooms, microphones and noise, and words without meaning."""

import numpy as np
import pytest

from fg3dgs_jax.synthetic import nonsense, recording

RATE = 16_000


def _tone(hertz, seconds=1.0):
    return np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)


def _peak(samples):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return np.argmax(spectrum) * RATE / len(samples)


@pytest.mark.parametrize("ratio", [0.8, 1.0, 1.25])
def test_faster_is_shorter_and_higher(ratio):
    played = recording.resample(_tone(440.0), ratio)
    assert len(played) == round(RATE / ratio)
    assert abs(_peak(played) - 440 * ratio) < 3


def test_resampling_from_another_rate_keeps_the_pitch():
    sound = np.sin(2 * np.pi * 300 * np.arange(22_050) / 22_050)
    assert abs(_peak(recording.resample(sound, 22_050 / RATE)) - 300) < 2


def test_rooms_add_a_tail_after_the_sound():
    click = np.zeros(RATE)
    click[1000] = 1.0
    wet = recording.reverberate(click, np.random.default_rng(0), 0.4, 4.0)
    assert wet[1000] == pytest.approx(1.0) and np.abs(wet[:1000]).max() < 1e-9
    assert np.sum(wet[1001:] ** 2) == pytest.approx(0.25, rel=0.05)
    assert np.std(wet[1100:2000]) > 5 * np.std(wet[5000:6000])


def test_noise_and_music_have_deviation_one_and_repeat_by_seed():
    for make in (
        lambda rng: recording.coloured_noise(RATE, rng, 1.0),
        lambda rng: recording.music(RATE, rng),
    ):
        first, again, other = (make(np.random.default_rng(seed)) for seed in (0, 0, 1))
        assert first.std() == pytest.approx(1.0) and np.isfinite(first).all()
        assert (first == again).all() and (first != other).any()


def test_mixed_is_as_far_below_as_asked():
    noise = np.random.default_rng(0).normal(size=RATE) * 7
    added = recording.mixed(np.zeros(RATE), noise, 20.0, 0.1)
    assert added.std() == pytest.approx(0.01)


def test_bursts_leave_silence_between():
    sound = recording.bursts(4 * RATE, np.random.default_rng(0))
    assert np.abs(sound).max() == pytest.approx(1.0) and (sound == 0).mean() > 0.2


def test_microphones_keep_length_and_cut_the_highest():
    noise = np.random.default_rng(0).normal(size=5000)
    assert len(recording.equalise(noise, np.random.default_rng(0), 3.0)) == 5000


@pytest.mark.parametrize("language", nonsense.LANGUAGES)
def test_every_language_has_something_to_say(language):
    texts = [nonsense.text(language, 30, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    assert len(texts[0].split()) == 30 and texts[0][-1] in ".!?"
