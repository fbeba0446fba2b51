"""`evaluate --video`: finished videos, of other size, rate, length and offset than the truth."""

import csv
import json

import cv2
import numpy as np
import pytest

from fg3dgs_jax.clip import landmarks
from fg3dgs_jax.evaluate import main
from fg3dgs_jax.evaluation import alignment, drive, judge, pretrained
from fg3dgs_jax.experts.optional import OptionalNetwork
from fg3dgs_jax.lipsync import openings
from fg3dgs_jax.media import video
from tests import fake_avatar
from tests.evaluation.test_drive import PaintedTracker

SECONDS, SIZE = 4, 64


class MouthTracker(PaintedTracker):
    """Also says where the painted mouth is."""

    def track(self):
        track = super().track()
        rim = [i for i in landmarks.OUTER_LIPS if i not in (17, 61, 291)]
        track.pixels[:, rim] = (fake_avatar.SIZE / 2, fake_avatar.TOP)
        track.pixels[:, rim[:2]] = (20, fake_avatar.TOP), (44, fake_avatar.TOP + 14)
        return track


def moving(count, size=SIZE, seed=0):
    """Pictures in which a soft spot wanders over a coloured ground."""
    rows, columns = np.mgrid[0:size, 0:size] / size
    ground = np.stack([0.3 + 0.4 * rows, 0.5 - 0.3 * columns, 0.4 + 0 * rows], -1)
    for t in range(count):
        x, y = 0.5 + 0.3 * np.sin(0.1 * t + seed), 0.5 + 0.3 * np.cos(0.13 * t)
        spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 0.01)[..., None]
        yield np.rint(255 * np.clip(ground + 0.4 * spot, 0, 1)).astype(np.uint8)


@pytest.fixture(scope="module")
def sound():
    return fake_avatar.speech(SECONDS, 3)


@pytest.fixture(autouse=True)
def no_networks(monkeypatch):
    monkeypatch.setattr(pretrained.store, "find", lambda _: None)
    monkeypatch.setattr(drive, "load_landmarker", lambda: OptionalNetwork(None, "none"))
    monkeypatch.setattr(judge, "load_landmarker", lambda: OptionalNetwork(None, "none"))


def film(path, pictures, samples, **options):
    video.write_video(path, pictures, samples, crf=4, **options)
    return str(path)


def judged(path, *flags):
    assert main(["--video", path, *flags]) == 0
    return json.loads((judge.result_folder(path, None) / "metrics.json").read_text())


def test_a_video_is_its_own_truth(tmp_path, sound):
    path = film(tmp_path / "a.mp4", moving(100), sound)
    result = judged(path, "--truth", path)
    assert result["psnr"] == 100 and result["ssim"] == pytest.approx(1) and not result["notes"]
    for name in ("lpips", "lmd", "fid", "lse_c", "driven"):
        assert result[name] is None and result["weights"].get(name, result["weights"]["lips"])
    folder = judge.result_folder(path, None)
    with open(folder / "per_frame.csv") as file:
        assert [int(row["frame"]) for row in csv.DictReader(file)] == list(range(100))
    page = (folder / "report.html").read_text()
    assert "comparison.mp4" in page and "frames.png" in page and "lips.png" not in page
    assert video.read_video(folder / "comparison.mp4").num_frames == 100
    sheet = cv2.imread(str(folder / "frames.png"))
    assert sheet is not None and sheet.shape[1] > 8 * SIZE


@pytest.mark.parametrize("first", [0, 31])
def test_a_part_of_other_size_and_rate_is_laid_where_its_sound_belongs(tmp_path, sound, first):
    truth = film(tmp_path / "truth.mp4", moving(100), sound)
    pictures = [cv2.resize(p, (96, 96), interpolation=cv2.INTER_CUBIC) for p in moving(100)]
    twice = (p for p in pictures[first : first + 60] for _ in range(2))
    part = film(tmp_path / "part.mp4", twice, sound[640 * first :], fps=50)
    result = judged(part, "--truth", truth)
    assert result["frames"] == 60 and result["psnr"] > 38
    notes = " ".join(result["notes"])
    assert "96 x 96 px are scaled to 64 x 64" in notes and "60 frames are compared" in notes
    assert "50.00 frames a second" in notes
    assert (f"frame 0 of part.mp4 is frame {first} of truth.mp4" in notes) == (first > 0)
    late = film(tmp_path / "late.mp4", pictures[first : first + 60], sound[640 * (first + 4) :])
    assert judged(late, "--truth", truth)["psnr"] < result["psnr"] - 5


def test_worse_videos_have_worse_figures(tmp_path, sound):
    truth = film(tmp_path / "truth.mp4", moving(60), sound)
    changes = {
        "same": lambda p: p,
        "blurred": lambda p: cv2.GaussianBlur(p, (0, 0), 3),
        "other": lambda p: p[:, ::-1],
    }
    figures = {}
    for name, change in changes.items():
        path = film(tmp_path / f"{name}.mp4", map(change, moving(60)), sound)
        figures[name] = judged(path, "--truth", truth)
    for metric in ("psnr", "ssim"):
        same, blurred, other = (figures[name][metric] for name in changes)
        assert same > blurred > other


def test_lips_are_compared_where_there_is_a_landmarker(tmp_path, sound, monkeypatch):
    painted = OptionalNetwork(MouthTracker, "painted")
    monkeypatch.setattr(judge, "load_landmarker", lambda: painted)
    faces = list(speaking(sound))
    truth = film(tmp_path / "truth.mp4", faces, sound)
    result = judged(truth, "--truth", truth)
    assert result["driven"]["opening"] == pytest.approx(1) and result["driven"]["lag"] == 0
    assert result["jitter"] == result["jitter_truth"] and result["face"] == 1
    assert result["lips_psnr"] == 100 and result["temporal"]["lips_ratio"] == pytest.approx(1)
    frozen = film(tmp_path / "frozen.mp4", [faces[0]] * len(faces), sound)
    result = judged(frozen, "--truth", truth)
    assert result["driven"]["opening"] is None and result["driven"]["opening_spread"] < 0.05
    assert result["temporal"]["lips_ratio"] < 0.1
    late = film(tmp_path / "late.mp4", faces[:5] + faces[:-5], sound)
    result = judged(late, "--truth", truth)
    assert result["driven"]["lag"] == 5 and result["lips_psnr"] < 40
    alone = judged(truth)
    assert alone["truth"] is None and "psnr" not in alone and alone["envelope_correlation"] > 0.5
    assert "lips.png" in (judge.result_folder(truth, None) / "report.html").read_text()


def speaking(samples):
    """Frames in which the mouth is as open as the sound is loud."""
    loud = openings.envelope(samples, SECONDS * 25)
    for value in loud / loud.max():
        yield fake_avatar.paint(value)[0]


def test_what_cannot_be_compared_is_one_line_and_what_can_is(tmp_path, sound, capsys):
    truth = film(tmp_path / "truth.mp4", moving(60), sound)
    wide = [np.hstack([p, p]) for p in moving(60)]
    assert main(["--video", film(tmp_path / "wide.mp4", wide, sound), "--truth", truth]) == 1
    assert "expected the same part of the picture" in capsys.readouterr().err
    assert main(["--video", truth, "--truth", film(tmp_path / "short.mp4", moving(20), sound)]) == 1
    assert "is 20 frames long" in capsys.readouterr().err
    assert main(["--video", str(tmp_path / "no.mp4")]) == 1
    assert "does not exist" in capsys.readouterr().err
    mute = film(tmp_path / "mute.mp4", moving(60), None)
    assert judged(mute, "--truth", truth)["psnr"] > 40
    assert "mute.mp4 has no sound" in capsys.readouterr().err
    for flags in (["--truth", truth], ["--video", truth, "--on_mp4"], []):
        with pytest.raises(SystemExit, match="2"):
            main(flags)


def test_the_lag_of_two_sounds_is_found_to_the_millisecond():
    rng = np.random.default_rng(0)
    sound = (3000 * rng.normal(size=64_000)).astype(np.int16)
    noisy = np.clip(sound + 1500 * rng.normal(size=64_000), -32768, 32767).astype(np.int16)
    for shift in (0, 7, -4_000, 30_000):
        part = noisy[max(shift, 0) : len(noisy) + min(shift, 0)]
        first, second = (part, sound) if shift >= 0 else (sound, part)
        lag = alignment.between(first, second if shift >= 0 else part)
        expected = abs(shift) / 16_000 if shift >= 0 else 0.0
        assert lag.same and lag.seconds == pytest.approx(expected, abs=0.001)
    other = (3000 * rng.normal(size=64_000)).astype(np.int16)
    assert not alignment.between(sound, other).same
    assert not alignment.between(sound, np.zeros(64_000, np.int16)).same
