"""The voice map: made speech-like sound against silence, noise, tones and coughs; real speech."""

import os
import pathlib

import numpy as np
import pytest

from fg3dgs_jax.media import loudness, video, voice

ROOT = pathlib.Path(__file__).resolve().parents[2]
MATERIAL = pathlib.Path(os.environ.get("FG3DGS_TEST_DATA", ROOT.parent / "shared"))
RATE = 16_000


def _talk(seconds, seed=0):
    """Voiced syllables of changing vowels, with hiss between them, float [n]."""
    rng = np.random.default_rng(seed)
    times = np.arange(int(seconds * RATE)) / RATE
    knots = np.arange(0, seconds + 1, 0.11)
    pitch = np.interp(times, knots, rng.uniform(100, 150, len(knots)))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    first, second = (np.interp(times, knots, rng.uniform(*f, len(knots))) for f in _FORMANTS)
    sound = np.zeros_like(times)
    for k in range(1, 30):
        near = [np.exp(-(((k * pitch - f) / 200) ** 2)) for f in (first, second)]
        sound += (near[0] + 0.5 * near[1] + 0.002) * np.sin(k * phase)
    loud = np.interp(times, knots, rng.uniform(0, 1, len(knots)) ** 2)
    hiss = np.diff(rng.normal(size=len(times) + 1)) * np.interp(
        times, knots, rng.random(len(knots))
    )
    return _level(loud * sound + 0.05 * (1 - loud) * hiss)


_FORMANTS = (250, 900), (900, 2500)


def _level(sound, rms=0.1):
    return rms * sound / np.sqrt((sound**2).mean())


def _chords(seconds):
    times = np.arange(int(seconds * RATE)) / RATE
    roots = np.array([220.0, 196.0, 262.0, 247.0])[(times / 0.8).astype(int) % 4]
    wobble = 0.004 * np.sin(2 * np.pi * 5.5 * times) / 5.5
    sound = np.zeros_like(times)
    for ratio in (1.0, 1.26, 1.5):
        phase = 2 * np.pi * (np.cumsum(roots * ratio) / RATE + roots * ratio * wobble)
        sound += sum(np.sin(k * phase) / k for k in range(1, 8))
    return _level(sound)


def _coughs(seconds):
    rng = np.random.default_rng(0)
    sound = np.zeros(int(seconds * RATE))
    for start in range(RATE // 2, len(sound) - RATE // 2, int(1.2 * RATE)):
        burst = rng.normal(size=RATE // 4) * np.exp(-np.arange(RATE // 4) / RATE / 0.07)
        sound[start : start + len(burst)] = burst
    return 0.5 * sound / np.abs(sound).max()


def _noise(seconds, slope):
    count = int(seconds * RATE)
    bins = np.fft.rfft(np.random.default_rng(0).normal(size=count))
    shape = np.maximum(np.fft.rfftfreq(count, 1 / RATE), 30) ** (-slope / 2)
    return _level(np.fft.irfft(bins * shape))


def _map(sound):
    return voice.voice_map(sound.astype(np.float32), len(sound) // 640)


def test_speech_is_kept_and_the_mouth_shuts_in_pauses():
    pause = np.zeros(2 * RATE)
    sound = np.concatenate([pause, _talk(3), pause, _talk(2, seed=1), pause])
    found = _map(sound)
    assert found.dtype == np.float32 and found.shape == (275,)
    assert found.min() >= 0 and found.max() <= 1
    assert found[50:125].min() > 0.9 and found[175:225].min() > 0.9
    assert not found[:44].any() and not found[140:169].any() and not found[240:].any()
    assert (np.diff(found[124:142]) <= 0).all() and (found[126:140] % 1 > 0).sum() > 4  # it fades


def test_soft_and_noisy_speech_is_kept():
    speech = _talk(4)
    for sound in (0.1 * speech, speech + 0.2 * _noise(4, 0), speech + 0.3 * _noise(4, 1)):
        assert (_map(sound)[5:] > 0.5).mean() > 0.95


@pytest.mark.parametrize(
    "sound, most",
    [
        (np.zeros(4 * RATE), 0.0),
        (_noise(4, 0), 0.02),
        (_noise(4, 1), 0.02),
        (1e-4 * _noise(4, 0), 0.0),
        (_coughs(5), 0.03),
        (_chords(6), 0.15),
        (_level(np.sin(2 * np.pi * 440 * np.arange(4 * RATE) / RATE)), 0.15),
    ],
    ids=["zeros", "white", "pink", "hush", "coughs", "chords", "tone"],
)
def test_what_is_no_voice_moves_no_lips(sound, most):
    assert _map(sound).mean() <= most
    after = _map(np.concatenate([_talk(2), sound]))
    assert after[50 + 25 :].mean() <= most + 0.02  # a second later


def test_a_stream_gives_the_same_numbers_as_the_file():
    sound = np.concatenate([_talk(3), _noise(1.5, 1), _talk(2, seed=2), _chords(2)])
    whole = _map(sound)
    past, ahead = int(voice.PAST * 25 + 0.5), int(voice.AHEAD * 25)
    for first in (0, 37, 60, 101, 150):
        start, stop = max(0, first - past), first + 1 + ahead
        part = _map(sound[start * 640 : stop * 640])
        assert abs(part[first - start] - whole[first]) < 1e-5
    later = sound.copy()
    later[(100 + ahead) * 640 :] = _noise(len(sound) / RATE, 0)[(100 + ahead) * 640 :]
    np.testing.assert_array_equal(_map(later)[:101], whole[:101])


def test_any_length_is_answered():
    assert voice.voice_map(np.zeros(0, np.int16), 0).shape == (0,)
    assert voice.voice_map(np.zeros(10, np.int16), 3).tolist() == [0, 0, 0]
    long = voice.voice_map((32767 * _talk(2)).astype(np.int16), 100)
    assert long[10:50].min() > 0.5 and not long[64:].any()


def test_real_speech_is_kept_and_the_silence_about_it_is_not():
    path = MATERIAL / "data" / "audio" / "radio34.wav"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    samples = video.read_audio(path)
    samples = loudness.apply_gain(samples, loudness.gain_db(samples))
    frames = len(samples) // 640
    spoken = loudness.speech_map(samples, frames)
    padded = np.pad(samples[: frames * 640], 2 * RATE)
    found = voice.voice_map(padded, frames + 100)
    assert (found[50:-50][spoken] > 0.5).mean() > 0.98
    assert found[:44].mean() < 0.02 and found[-36:].mean() < 0.02
