"""The sound's lateness: made sound whose truth is known, and the real clips."""

import os
import pathlib

import numpy as np
import pytest

from fg3dgs_jax.clip import av_offset
from fg3dgs_jax.experts.face import face_landmarker
from fg3dgs_jax.media import video, video_writer
from fg3dgs_jax.preprocessing import from_video, resume

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


def _guess(points, seed=3, noise=0.7):
    """What a model might expect of these lips [T, 3], in units of its own."""
    rng = np.random.default_rng(seed)
    lips = np.stack([points[:, 14, 1], points[:, 291, 0], points[:, 0, 0]], 1)
    lips = (lips - lips.mean(0)) / (lips.std(0) + 1e-9)
    return 7 + 0.1 * (lips + noise * rng.normal(size=lips.shape))


@pytest.mark.parametrize("late", [-0.3, 0.0, 0.16])
def test_a_prediction_is_certain_of_five_seconds(late):
    points, samples = _speaker(late=late)
    at, everywhere = np.arange(FRAMES) / 25, np.ones(FRAMES, bool)
    predicted = np.stack([np.interp(at - late, at, c) for c in _guess(points).T], 1)
    five = points[100:225], everywhere[:125], samples[64_000 : 225 * 640]
    assert not av_offset.estimate(*five).certain
    found = av_offset.estimate(*five, predicted[100:225])
    assert found.certain and abs(found.seconds - late) < 0.03
    with_gauge = av_offset.estimate(*five, predicted[100:225], gauge=0.04)
    assert abs(with_gauge.seconds - found.seconds + 0.04) < 0.01
    whole = av_offset.estimate(points, everywhere, samples, predicted)
    assert whole.certain and abs(whole.seconds - late) < 0.02


def test_a_prediction_of_another_sound_gives_no_number():
    seen = np.ones(150, bool)
    for seed in range(6):
        points, samples = _speaker(seed)
        points, samples = points[:150], samples[: 150 * 640]
        predicted = _guess(_speaker(seed + 10)[0])[:150]
        own = av_offset.estimate(points, seen, _speaker(seed + 10)[1][: 150 * 640], predicted)
        assert not own.certain
    flat = av_offset.estimate(points, seen, samples, np.ones((150, 2)))
    assert not flat.certain and "nothing moves" in str(flat)
    short = av_offset.estimate(points[:75], seen[:75], samples, predicted[:75])
    assert not short.certain and "3.0 s, 4 s needed" in str(short)


def test_only_what_is_certain_moves_the_sound():
    late = av_offset.Offset(0.2804, True, 7.2, 0.01, "")
    correction = av_offset.correct(late)
    assert correction == (0.28, late)
    assert str(correction) == "moved by -0.280 s (auto): sound 280 ms late, 7.2 sigma above chance"
    assert "+0.120 s (auto): sound 120 ms early" in str(
        av_offset.correct(late._replace(seconds=-0.12))
    )
    near = av_offset.correct(late._replace(seconds=0.05))
    assert near.seconds == 0 and str(near) == "not moved (auto): in step (+50 ms)"
    unsure = av_offset.correct(late._replace(certain=False, reason="noise"))
    assert unsure.seconds == 0 and str(unsure) == "not moved (auto): not certain (noise)"
    assert str(av_offset.Correction(0.0, None)) == "not moved, as set"


def _folder_job(tmp_path, clip, offset):
    source = clip if offset == "auto" else clip.moved(offset)
    folder = resume.Folder(tmp_path / "o", {"a": 1})
    job = from_video.VideoJob(folder, None, None, None, (), source, offset, None, None)
    job.meta = lambda: {
        "num_frames": FRAMES,
        "width": 64,
        "height": 64,
        "intrinsics": (1,) * 4,
        "source": {},
    }
    return job


def test_auto_decides_once_for_a_folder(tmp_path, monkeypatch, capsys):
    points, samples = _speaker()
    pictures = np.zeros((FRAMES, 64, 64, 3), np.uint8)
    video_writer.write_video(tmp_path / "v.mkv", pictures, _shifted(samples, 0.2))
    clip = video.read_video(tmp_path / "v.mkv")
    track = face_landmarker.FaceTrack(
        points.astype(np.float32),
        np.zeros((FRAMES, 478), np.float32),
        np.zeros((FRAMES, 52), np.float32),
        ("a",),
        np.tile(np.eye(3, dtype=np.float32), (FRAMES, 1, 1)),
        np.ones(FRAMES, np.int32),
    )
    steps = [step for step in from_video.STEPS if step.name in ("offset", "listen")]

    def wav(offset):
        job = _folder_job(tmp_path, clip, offset)
        resume.run(steps, job)
        return video.read_wav(job.folder.path / "audio.wav").astype(float), job

    fields = {k: np.asarray(v) for k, v in track._asdict().items()}
    folder = resume.Folder(tmp_path / "o", {"a": 1})
    np.savez(folder.path / "faces.npz", **fields)
    folder.save("scene", {"left_out": [], "others": []})
    auto, job = wav("auto")
    assert f"moved by -{job.correction.seconds:.3f} s (auto)" in capsys.readouterr().out
    moved = job.correction.seconds
    assert abs(moved - 0.2) < 0.02 and job.sound_record["av_offset"] == moved
    assert job.lateness.certain and abs(job.lateness.seconds) < 0.02
    left, job = wav(0.0)
    assert job.correction == (0.0, None) and job.lateness.out_of_step
    k = round(moved * 16_000)
    assert np.corrcoef(auto[:-k], left[k:])[0, 1] > 0.999
    assert np.array_equal(wav("auto")[0], auto)

    def never(*_):
        raise AssertionError("what was decided is decided again")

    (tmp_path / "o" / "audio.wav").unlink()  # as if it had been interrupted there
    with monkeypatch.context() as patch:
        patch.setattr(av_offset, "estimate", never)
        assert np.array_equal(wav("auto")[0], auto)


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
