"""The sound's lateness: made sound whose truth is known, and the real clips."""

import os
import pathlib

import numpy as np
import pytest

from fg3dgs_jax.experts.face import face_landmarker
from fg3dgs_jax.media import video
from fg3dgs_jax.preprocessing.check import av_offset

ROOT = pathlib.Path(__file__).resolve().parents[2]
MATERIAL = pathlib.Path(os.environ.get("FG3DGS_TEST_DATA", ROOT.parent / "shared"))
MODEL = MATERIAL / "models" / "face_landmarker.task"
FRAMES = 500


def _shifted(samples, seconds):
    """The same number of samples, later by `seconds`."""
    k = round(seconds * 16_000)
    return np.concatenate([np.zeros(max(k, 0), np.int16), samples])[max(-k, 0) :][: len(samples)]


def _speaker(seed=0, late=0.0):
    """Landmarks [T, 478, 2] of a mouth that opens with vowels, and the sound of them."""
    rng = np.random.default_rng(seed)
    times = (np.arange(FRAMES * 640)) / 16_000
    knots = np.arange(0, FRAMES / 25 + 1, 0.12)
    vowel = np.interp(times - late, knots, rng.uniform(0, 1, len(knots)))
    hiss = np.interp(times - late, knots, rng.uniform(0, 1, len(knots)) ** 3)
    low = np.convolve(rng.normal(size=len(times)), np.hanning(40) / 20, "same")
    high = np.diff(rng.normal(size=len(times) + 1))
    samples = np.rint(2500 * (vowel * low + hiss * high + 0.01 * low)).astype(np.int16)
    points = np.zeros((FRAMES, 478, 2))
    points[:, 33], points[:, 263] = (200, 200), (300, 200)
    opening = np.interp(np.arange(FRAMES) / 25 + late, times, vowel)
    points[:, 14, 1] = 20 * opening + 0.5 * rng.normal(size=FRAMES)
    points[:, 291, 0] = 50 - 8 * opening + 0.5 * rng.normal(size=FRAMES)
    return points, samples


@pytest.mark.parametrize("late", [-0.5, -0.07, 0.0, 0.28, 0.9])
def test_a_shift_of_made_sound_is_found(late):
    points, samples = _speaker()
    found = av_offset.estimate(points, np.ones(FRAMES, bool), _shifted(samples, late))
    assert found.certain and abs(found.seconds - late) < 0.02
    assert ("in step" in str(found)) == (late == 0)
    assert late == 0 or f"--av_offset {found.seconds:.2f}" in str(found)
    assert late == 0 or f"--av_offset {found.seconds + 0.1:.2f}" in found.in_words(already=0.1)


def test_frames_without_a_face_do_not_matter():
    points, samples = _speaker()
    valid = np.ones(FRAMES, bool)
    valid[60:110] = valid[300:320] = False
    points[~valid] = 1e4 * np.random.default_rng(1).normal(size=((~valid).sum(), 478, 2))
    found = av_offset.estimate(points, valid, _shifted(samples, 0.2))
    assert found.certain and abs(found.seconds - 0.2) < 0.02


def test_what_does_not_belong_together_gives_no_number():
    points, _ = _speaker(0)
    everywhere = np.ones(FRAMES, bool)
    for seed in range(1, 6):
        found = av_offset.estimate(points, everywhere, _speaker(seed)[1])
        assert not found.certain and "not certain" in str(found) and "--av" not in str(found)
    silent = av_offset.estimate(points, everywhere, np.zeros(FRAMES * 640, np.int16))
    assert not silent.certain and "nothing is heard" in str(silent)
    still = av_offset.estimate(np.repeat(points[:1], FRAMES, 0), everywhere, _speaker(0)[1])
    assert not still.certain
    short = av_offset.estimate(points[:100], everywhere[:100], _speaker(0)[1])
    assert not short.certain and "4.0 s" in str(short)


def test_a_real_clip_whose_sound_is_280_ms_late_is_told_so():
    pytest.importorskip("mediapipe", reason="mediapipe is not installed")
    path = MATERIAL / "data" / "videos" / "obama.mp4"
    if not (path.exists() and MODEL.exists()):
        pytest.skip(f"{path} or {MODEL} is absent")
    clip = video.read_video(path, max_seconds=14)
    track = face_landmarker.detect(MODEL, clip.frames())
    plain = av_offset.estimate(track.pixels, track.valid, clip.samples)
    assert plain.certain and abs(plain.seconds) <= av_offset.IN_STEP
    late = av_offset.estimate(track.pixels, track.valid, _shifted(clip.samples, 0.28))
    assert late.certain and abs(late.seconds - 0.28) < 0.06 and "late" in str(late)
    # What is told is what corrects it: the flag takes the same number.
    again = video.read_video(path, max_seconds=14, av_offset=-0.28)
    back = av_offset.estimate(track.pixels, track.valid, _shifted(again.samples, -0.28))
    assert back.certain and abs(back.seconds) <= av_offset.IN_STEP
