"""`evaluate --drive` with an avatar that paints a mouth as open as the sound is loud."""

import csv
import json
import os
import pathlib

import cv2
import numpy as np
import pytest

from fg3dgs_jax.avatar import play
from fg3dgs_jax.avatar import store as avatar_store
from fg3dgs_jax.avatar.subject import Speech
from fg3dgs_jax.clip import landmarks
from fg3dgs_jax.evaluate import main
from fg3dgs_jax.evaluation import drive
from fg3dgs_jax.experts.face import face_landmarker
from fg3dgs_jax.experts.optional import OptionalNetwork
from fg3dgs_jax.lipsync import ruler
from fg3dgs_jax.media import video, windows
from tests import fake_avatar

ROOT = pathlib.Path(__file__).resolve().parents[2]
MATERIAL = pathlib.Path(os.environ.get("FG3DGS_TEST_DATA", ROOT.parent / "shared"))
CUES = ("lag", *ruler.CURVES, "opening_spread", "recall", "precision", "f1")


class PaintedTracker:
    """Reads the painted mouth off each picture, as the landmarker would."""

    def __init__(self):
        self.gaps = []

    def watch(self, frames):
        for frame in frames:
            scale = frame.shape[0] / fake_avatar.SIZE
            column = frame[:, frame.shape[0] // 2, 0] / 1.0
            seen = np.abs(column[0] - fake_avatar.SKIN[0]) < 20
            self.gaps.append(np.sum(column[column.size // 2 :] < 100) / scale if seen else np.nan)
            yield frame

    def track(self):
        gaps = np.array(self.gaps)
        points = np.zeros((len(gaps), 478, 3), np.float32)
        points[:, landmarks.EYE_CORNERS, :2] = (48, 20), (16, 20)
        points[:, 14, 1] = gaps
        points[:, 61, 0], points[:, 291, 0] = 20 + gaps / 4, 44 - gaps / 4
        points[:, 17, 2] = -gaps / 5
        valid = np.isfinite(gaps)
        points[~valid] = 0.0
        return face_landmarker.FaceTrack(
            pixels=points[..., :2],
            depth=points[..., 2],
            blendshapes=np.zeros((len(gaps), 52), np.float32),
            names=(),
            rotation=np.tile(np.eye(3, dtype=np.float32), (len(gaps), 1, 1)),
            num_faces=valid.astype(np.int32),
        )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return fake_avatar.make_folder(tmp_path_factory.mktemp("drive") / "data", seconds=4)


@pytest.fixture
def workdir(data, monkeypatch, tmp_path):
    """A workdir whose avatar and landmarker are painted."""
    avatar = fake_avatar.Avatar(data)
    monkeypatch.setattr(avatar_store, "load", lambda _: avatar)
    painted = OptionalNetwork(PaintedTracker, "painted")
    monkeypatch.setattr(drive, "load_landmarker", lambda: painted)
    return tmp_path / "run"


def _film(path, seed, seconds=4, late=0, face=True):
    """A video, wider than high, whose mouth is as open as its sound; the sound `late` frames."""
    samples = fake_avatar.speech(seconds, seed)
    samples[20_000:24_000] = samples[45_000:48_000] = 0  # the lips shut
    count = seconds * 25
    gaps = fake_avatar.loudness(windows.mel_windows(samples, count))
    pictures = [cv2.resize(fake_avatar.paint(gap)[0], (128, 128)) for gap in gaps]
    frames = [np.pad(p, ((0, 0), (0, 32), (0, 0))) * np.uint8(face) for p in pictures]
    path.parent.mkdir(exist_ok=True, parents=True)
    video.write_video(path, frames, np.roll(samples, 640 * late), crf=5)
    return path


def test_lips_that_follow_the_sound_as_the_real_ones_do(workdir, tmp_path, capsys):
    films = [_film(tmp_path / f"{name}.mp4", seed) for seed, name in enumerate("ab", 11)]
    out = tmp_path / "results"
    flags = ["--workdir", str(workdir), "--out", str(out), "--drive", *map(str, films)]
    assert main(flags) == 0
    result = json.loads((out / "drive.json").read_text())
    assert [row["name"] for row in result["videos"]] == ["a", "b"] and not result["left_out"]
    for row in [*result["videos"], result["mean"]]:
        for name in ruler.CURVES:
            assert row[name] > 0.95 and row[f"{name}_spread"] == pytest.approx(1.0, abs=0.1)
        assert row["frames"] == 100 and row["f1"] > 0.8 and row["closures"] > 1
    assert [row["lag"] for row in result["videos"]] == [0, 0]
    assert result["mean"]["median_lag"] == 0 and result["mean"]["near_median_lag"] == 2
    assert result["chance"]["opening"] < 0.7 * result["mean"]["opening"]
    assert result["weights"] == {"drive": "painted"}

    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split()[:3] == ["frames", "lag", "opening"]
    assert [line.split()[0] for line in printed[1:5]] == ["a", "b", "mean,", "chance"]
    assert "2 of 2 videos" in printed[5] and str(out) in printed[6]
    names = {path.name for path in out.iterdir()}
    assert names == {"drive.json", "drive.csv", "drive.png", "drive_a.mp4", "drive_b.mp4"}
    with open(out / "drive.csv") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[1]["opening"]) == result["videos"][1]["opening"]
    assert cv2.imread(str(out / "drive.png")).shape[0] == 2 * 3 * 130


def test_the_side_by_side_video_has_both_faces_and_the_sound(workdir, tmp_path):
    film = _film(tmp_path / "a.mp4", 3)
    drive.drive(workdir, [film])
    both = video.read_video(workdir / "eval_drive" / "drive_a.mp4")
    # The real picture of 160 x 128 px is scaled to the avatar's height.
    assert (both.num_frames, both.height, both.width) == (100, 64, 80 + 64)
    sound = video.read_video(film).samples.astype(float)
    assert np.corrcoef(both.samples, sound)[0, 1] > 0.95
    picture = list(both.frames())[50].astype(int)
    left, right = picture[:, :64], picture[:, 80:]
    assert np.abs(left - right).mean() < 12 and picture[:, 66:78].max() < 40


def test_late_sound_is_in_the_lag_until_it_is_known(workdir, tmp_path):
    film = _film(tmp_path / "late.mp4", 4, late=5)
    unknown = drive.drive(workdir, [film], side_by_side=False)["videos"][0]
    assert unknown["lag"] == 5 and unknown["opening"] > 0.9
    known = drive.drive(workdir, [film], side_by_side=False, late_frames=[5])["videos"][0]
    assert known["lag"] == 0 and known["opening"] == unknown["opening"]
    assert not list(workdir.rglob("*.mp4"))
    with pytest.raises(ValueError, match="2 late_frames for 1 videos"):
        drive.drive(workdir, [film], late_frames=[5, 0])


def test_the_lag_that_most_videos_have_is_applied_to_all(workdir, tmp_path):
    films = [_film(tmp_path / f"{late}{k}.mp4", k, late=late) for k, late in enumerate((0, 0, 6))]
    result = drive.drive(workdir, films, side_by_side=False)
    assert [row["lag"] for row in result["videos"]] == [0, 0, 6]
    assert result["mean"]["median_lag"] == 0 and result["mean"]["near_median_lag"] == 2
    fixed = [row["opening_at_median_lag"] for row in result["videos"]]
    assert fixed[0] == result["videos"][0]["opening"] and fixed[2] < 0.7


def test_a_video_that_cannot_be_used_has_one_line_and_the_rest_go_on(workdir, tmp_path, capsys):
    text, silent = tmp_path / "text.mp4", tmp_path / "silent.mp4"
    text.write_text("not a video")
    video.write_video(silent, [np.zeros((64, 64, 3), np.uint8)] * 50)
    bad = [text, silent, tmp_path / "none.mp4", _film(tmp_path / "wall.mp4", 1, face=False)]
    good = _film(tmp_path / "good.mp4", 2)
    result = drive.drive(workdir, [*bad, good])
    assert [row["name"] for row in result["videos"]] == ["good"]
    assert list(result["left_out"]) == ["text", "silent", "none", "wall"]
    assert "a face in 0 of 100 frames" in result["left_out"]["wall"]
    lines = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert len(lines) == 4 and "silent" in lines[1] and "no sound" in lines[1]
    videos = [path.name for path in (workdir / "eval_drive").glob("*.mp4")]
    assert videos == ["drive_good.mp4"]


def test_no_video_that_can_be_used_is_bad_input(workdir, tmp_path, capsys):
    assert main(["--workdir", str(workdir), "--drive", str(tmp_path / "none.mp4")]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("evaluate: none of 1 videos can be used")
    assert not (workdir / "eval_drive" / "drive.json").exists()


def test_two_files_of_one_name_do_not_overwrite_each_other(workdir, tmp_path):
    assert drive.unique_names(["a/x.mp4", "b/x.webm", "x_2.mp4", "X.mov", "y"]) == [
        *("x", "x_2", "x_2_2", "X_3", "y")
    ]
    films = [_film(tmp_path / str(seed) / "same.mp4", seed, seconds=2) for seed in (1, 2)]
    result = drive.drive(workdir, films)
    assert [row["name"] for row in result["videos"]] == ["same", "same_2"]
    assert len(list((workdir / "eval_drive").glob("drive_same*.mp4"))) == 2


def test_without_the_landmarker_there_is_a_reason_and_the_video(
    workdir, tmp_path, capsys, monkeypatch
):
    monkeypatch.undo()
    monkeypatch.setattr(avatar_store, "load", lambda _: fake_avatar.Avatar(tmp_path / "data"))
    monkeypatch.setattr(drive.weights, "find", lambda _: None)
    fake_avatar.make_folder(tmp_path / "data", seconds=2)
    film = _film(tmp_path / "a.mp4", 1, seconds=2)
    assert main(["--workdir", str(workdir), "--drive", str(film)]) == 0
    result = json.loads((workdir / "eval_drive" / "drive.json").read_text())
    assert (
        result["mean"]["opening"] is None
        and "face_landmarker not found" in result["weights"]["drive"]
    )
    assert "face_landmarker not found" in capsys.readouterr().out
    (row,) = result["videos"]
    assert all(row[name] is None for name in CUES)
    assert {p.suffix for p in (workdir / "eval_drive").iterdir()} == {".json", ".csv", ".mp4"}


def test_a_render_without_a_face_has_no_figures_and_says_so(workdir, tmp_path, monkeypatch):
    draw = fake_avatar.Avatar.draw_pictures

    def dark(self, *arguments):
        drawn = draw(self, *arguments)
        return drawn._replace(image=np.zeros_like(drawn.image))

    monkeypatch.setattr(fake_avatar.Avatar, "draw_pictures", dark)
    result = drive.drive(workdir, [_film(tmp_path / "a.mp4", 1)])
    (row,) = result["videos"]
    assert row["face"] == 1.0 and row["face_rendered"] == 0.0 and row["frames"] == 0
    assert all(row[name] is None for name in CUES)
    assert "-" in drive.table(result)[1]
    assert (workdir / "eval_drive" / "drive.png").exists()


def test_pictures_are_read_once_and_not_held(workdir, tmp_path, monkeypatch):
    reads, held, most = [], [], []
    frames = video.Video.frames

    def spy(self, *arguments):
        reads.append(1)
        for frame in frames(self, *arguments):
            held.append(1)
            yield frame

    class Counting(PaintedTracker):
        def watch(self, pictures):
            for frame in super().watch(pictures):
                most.append(len(held) - len(self.gaps))
                yield frame

    monkeypatch.setattr(video.Video, "frames", spy)
    monkeypatch.setattr(drive, "load_landmarker", lambda: OptionalNetwork(Counting, "counting"))
    drive.drive(workdir, [_film(tmp_path / "a.mp4", 1)])
    assert len(reads) == 1 and max(most) <= 1


@pytest.mark.parametrize(
    "other", [["--on_mp4"], ["--lpips_vgg"], ["--sync_expert", "e.npz"], ["--split", "all"]]
)
def test_flags_of_the_other_metrics_are_refused(other, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--workdir", "w", *other, "--drive", "a.mp4"])
    assert stop.value.code == 2 and f"leave out {other[0]}" in capsys.readouterr().err


def test_real_lips_against_themselves_two_frames_later(tmp_path):
    """With MediaPipe, on two seconds of a real clip."""
    pytest.importorskip("mediapipe", reason="mediapipe is not installed")
    path = MATERIAL / "data" / "videos" / "obama.mp4"
    model = MATERIAL / "models" / "face_landmarker.task"
    if not (path.exists() and model.exists()):
        pytest.skip(f"{path} or {model} is absent")
    clip = video.read_video(path, max_seconds=2)
    pictures = list(clip.frames())
    video.write_video(tmp_path / "clip.mp4", pictures, clip.samples, crf=10)

    class Echo:
        """Speaks with the real face, two frames late and 256 px high."""

        def speak(self, samples, name):
            assert len(samples) == 640 * len(pictures)
            late = [pictures[max(i - 2, 0)] for i in range(len(pictures))]
            index = np.arange(len(late))
            drive = play.Drive(np.zeros((0, 1, 1)), np.zeros((0, 1)), poses=index, sounds=index)
            return Speech((cv2.resize(p, (256, 256)) for p in late), drive)

    def tracker():
        return face_landmarker.Tracker(model)

    file = tmp_path / "out.mp4"
    spoken = drive.speak(
        Echo(), "clip", tmp_path / "clip.mp4", OptionalNetwork(tracker, "mesh"), file
    )
    (row,) = drive.collect([spoken], [0.0])["videos"]
    assert row["face"] == row["face_rendered"] == 1.0 and row["lag"] == 2
    assert row["opening"] > 0.97 and row["width"] > 0.97 and row["protrusion"] > 0.8
    assert row["opening_spread"] == pytest.approx(1.0, abs=0.1)
    assert row["closures"] >= 1 and row["f1"] == 1.0
    assert 0.3 < np.mean(spoken.truth.width) < 1.2  # in eye distances
    assert video.read_video(file).num_frames == 50
