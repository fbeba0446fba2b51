"""The program: what it refuses, and a folder made of a real clip."""

import io
import json
import os
import pathlib
import types

import numpy as np
import pytest

from fg3dgs_jax.clip import format, processed
from fg3dgs_jax.experts.face import fer
from fg3dgs_jax.media import video, video_writer
from fg3dgs_jax.preprocess import main as preprocess
from fg3dgs_jax.preprocessing import from_video, resume, steps
from fg3dgs_jax.preprocessing.express import openface
from fg3dgs_jax.preprocessing.label import from_landmarks
from fg3dgs_jax.weights import files, store

ROOT = pathlib.Path(__file__).resolve().parents[2]
MATERIAL = pathlib.Path(os.environ.get("FG3DGS_TEST_DATA", ROOT.parent / "shared"))


@pytest.fixture
def models(monkeypatch):
    """The test material's models; skips where they, or mediapipe, are absent."""
    pytest.importorskip("mediapipe", reason="mediapipe is not installed")
    if not (MATERIAL / "models" / "face_landmarker.task").exists():
        pytest.skip(f"no models in {MATERIAL}/models")
    monkeypatch.setenv("FG3DGS_WEIGHTS", str(MATERIAL / "models"))


def refused(capsys, path, out, code=1):
    """Runs the program; expects the exit code, one line on stderr, nothing left."""
    assert preprocess(["--video", str(path), "--out", str(out), "--consent", "self"]) == code
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert len(lines) == 1
    assert not out.exists()
    return lines[0]


def make(path, frames=60, sound=True, picture=None):
    pictures = np.zeros((frames, 64, 64, 3), np.uint8) if picture is None else picture
    samples = np.zeros(frames * 640, np.int16) if sound else None
    video_writer.write_video(path, pictures, samples)
    return path


def test_no_such_file(models, capsys, tmp_path):
    assert "does not exist" in refused(capsys, tmp_path / "none.mp4", tmp_path / "out")


def test_text_file(models, capsys, tmp_path):
    (tmp_path / "a.mp4").write_text("hello\n" * 50)
    assert "a.mp4" in refused(capsys, tmp_path / "a.mp4", tmp_path / "out")


def test_no_sound(models, capsys, tmp_path):
    path = make(tmp_path / "mute.mp4", sound=False)
    assert "no sound" in refused(capsys, path, tmp_path / "out")


def test_three_frames(models, capsys, tmp_path):
    path = make(tmp_path / "short.mp4", frames=3)
    assert "3 frames" in refused(capsys, path, tmp_path / "out")


def test_no_face(models, capsys, tmp_path):
    assert "no face in 100%" in refused(capsys, make(tmp_path / "v.mp4"), tmp_path / "out")


def test_folder_that_was_there_is_kept(models, capsys, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    path = make(tmp_path / "v.mp4")
    assert preprocess(["--video", str(path), "--out", str(tmp_path / "out"), "--consent", "self"])
    assert (tmp_path / "out" / "mine.txt").exists()
    assert not list((tmp_path / "out").glob(".*part*"))


def test_a_wrong_csv_and_a_missing_network_come_before_the_work(models, capsys, tmp_path):
    path = make(tmp_path / "v.mp4")
    (tmp_path / "a.csv").write_text("frame, AU01_r\n1, 0.5\n")
    argv = ["--video", str(path), "--out", str(tmp_path / "out"), "--consent", "self"]
    for more, message in (
        (["--expression", str(tmp_path / "a.csv")], "lacks 16 of the 17 intensities"),
        (["--expression", str(tmp_path / "none.csv")], "none.csv"),
        (["--emotion", "emotieff"], "emotieff"),
    ):
        assert preprocess(argv + more) == 1
        (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
        assert message in line and not (tmp_path / "out").exists()


def test_two_faces_are_counted():
    counts = np.ones(100, int)
    counts[:30] = 2
    with pytest.raises(steps.PreprocessError, match="second face in 30%"):
        steps.check_faces(counts)
    counts[15:30] = 1
    steps.check_faces(counts)


@pytest.mark.parametrize(
    "extra", [["--features", "nonsense"], ["--max_seconds", "1"], ["--parser", "x"]]
)
def test_wrong_flags_are_usage_errors(tmp_path, extra):
    with pytest.raises(SystemExit) as caught:
        preprocess(["--video", "v", "--out", str(tmp_path / "o"), "--consent", "self", *extra])
    assert caught.value.code == 2


def test_wanted_features_without_weights_are_refused_before_the_work(capsys, tmp_path, monkeypatch):
    row = store.WeightFile("ave", "ave.pth", (), 1, "0" * 64, "CC BY-NC 4.0", "a test", "afar")
    monkeypatch.setitem(store.REGISTRY, "ave", row)
    monkeypatch.setattr(store, "search_folders", lambda: [tmp_path / "none"])

    def never(*_, **__):
        raise AssertionError("the video was read")

    monkeypatch.setattr(from_video.video, "read_video", never)
    argv = ["--video", "v", "--out", str(tmp_path / "o"), "--consent", "self"]
    assert preprocess([*argv, "--features", "mel,ave"]) == 1
    message = capsys.readouterr().err.strip()
    assert "ave.pth" in message and "CC BY-NC" in message and len(message.splitlines()) == 1
    assert not (tmp_path / "o").exists()
    assert steps.choose_extractors(None) == ("mel",)  # what was not asked for is left out
    assert "whisper and lips left out" in capsys.readouterr().out


def meta_of_five():
    """Arguments of `format.save_meta`."""
    return {"num_frames": 5, "width": 8, "height": 8, "intrinsics": (1, 1, 4, 4), "source": {}}


def test_every_wanted_extractor_gets_its_file_once(tmp_path, monkeypatch):
    folder = resume.Folder(tmp_path / "o", {"source": "x"})
    video.write_wav(folder.path / "audio.wav", np.ones(3200, np.int16))
    asked = ("mel", "ave", "hubert")
    job = types.SimpleNamespace(
        folder=folder, extractors=asked, num_frames=5, sound_record=True, meta=meta_of_five
    )
    calls = []

    def extract(name, samples, num_frames):
        calls.append(name)
        return np.full((num_frames, 1, 2), len(samples), np.float32)

    monkeypatch.setattr(steps.audio_features, "extract", extract)
    for _ in range(2):
        resume.run(steps.FEATURES, job)
        assert sorted(calls) == sorted(asked)
    assert (np.load(folder.path / "audio_hubert.npy") == 3200).all()
    job.sound_record = {"av_offset": 0.1}
    resume.run(steps.FEATURES, job)
    assert len(calls) == 6  # the sound has been moved


def test_missing_consent_is_not_guessed(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(SystemExit) as caught:
        preprocess(["--video", "v", "--out", str(tmp_path / "o")])
    assert caught.value.code == 2


def test_real_clip_becomes_a_folder_and_is_reused(models, tmp_path, monkeypatch):
    source = MATERIAL / "data" / "videos" / "obama.mp4"
    if not source.exists():
        pytest.skip(f"{source} is absent")
    out = tmp_path / "clip"
    argv = ["--video", str(source), "--out", str(out), "--consent", "research"]
    argv += ["--features", "mel", "--max_seconds", "3", "--parser", "landmarks"]
    assert preprocess(argv) == 0
    clip = processed.load_clip(out)
    assert clip.num_frames == 75 and clip.valid.all()
    assert clip.audio_features("mel").shape == (75, 16, 80)
    assert clip.expression_names[-1] == "AU45"
    if store.find("fer_emotion"):
        emotions = clip.expression_channels([f"emotion_{n}" for n in fer.EMOTIONS])
        np.testing.assert_allclose(emotions.sum(1), 1.0, atol=1e-3)
    assert 0.6 < clip.world_to_camera[:, 2, 3].mean() < 1.3
    head = np.isin(clip.labels, format.HEAD_LABELS)
    change = (head[1:] ^ head[:-1]).sum((1, 2)) / head[1:].sum((1, 2))
    assert change.max() < 0.08  # a stable silhouette
    outside = ~head & (np.asarray(clip.torso)[..., 3] > 250)
    error = np.abs(clip.backgrounds().astype(int) - clip.frames)[outside]
    assert error.mean() < 3
    meta = json.loads((out / "meta.json").read_text())
    assert meta["consent"]["kind"] == "research" and len(meta["source"]["sha256"]) == 64
    page = (out / "report.html").read_text()
    assert page.count('src="data:image/') == 4 and "there and back" in page
    assert not (out / "report").exists() and "when it was last done" in page
    assert meta["parser"] == "landmarks" and len(meta["weights"]["selfie_segmenter"]) == 64
    assert "face parser" in (out / "report.html").read_text()
    assert not list(out.glob(".*"))
    assert meta["expression"]["action_units"].startswith("blendshapes")

    def never(*_):
        raise AssertionError("a finished stage was done again")

    monkeypatch.setattr(steps.face_landmarker, "detect", never)
    monkeypatch.setattr(from_video.parsers.segmenter, "segment", never)
    assert preprocess(argv) == 0
    _other_expressions(out, argv, tmp_path)
    _another_parser(out, argv[:-1], monkeypatch)


def _other_expressions(out, argv, tmp_path):
    """Another source of expressions makes that stage again, and no other."""
    seconds = np.arange(90) / 30
    table = {"timestamp": seconds, "success": np.ones(90)}
    table |= {name: 5 * (seconds % 1) for name in openface.INTENSITIES}
    rows = [", ".join(map(str, row)) for row in zip(*table.values(), strict=True)]
    (tmp_path / "openface.csv").write_text("\n".join([", ".join(table), *rows]))
    more = ["--emotion", "none", "--expression", str(tmp_path / "openface.csv")]
    assert preprocess(argv + more) == 0
    clip = processed.load_clip(out)
    assert clip.expression_names[-1] == "AU45" and "AU26" in clip.expression_names
    assert not any(name.startswith("emotion") for name in clip.expression_names)
    found = clip.expression_channels(["AU01", "AU26"])
    np.testing.assert_allclose(found, np.repeat(np.arange(75)[:, None] / 25 % 1, 2, 1), atol=0.04)
    meta = json.loads((out / "meta.json").read_text())["expression"]
    assert meta["action_units"] == "openface" and meta["file"] == "openface.csv"
    assert meta["emotion"] == "none" and len(meta["sha256"]) == 64
    assert preprocess(argv) == 0  # and back
    assert "AU26" not in processed.load_clip(out).expression_names


def _another_parser(out, argv, monkeypatch):
    """Another parser makes labels and torso again, once, and leaves the rest alone."""
    before = {name: (out / name).stat().st_mtime_ns for name in ("frames.mkv", "camera.npz")}
    labels = np.asarray(processed.load_clip(out).labels)
    times = []

    def run(frames, points, fps, progress):
        times.append(len(frames))
        for i in range(len(frames)):
            yield from_landmarks.Parsed(labels[i, :, ::-1], np.float32(labels[i, :, ::-1] > 0))

    model = out.parent / "other.tflite"
    model.write_bytes(b"a model")
    parser = from_video.parsers.FaceParser("selfie_multiclass", {"other": model}, run)
    monkeypatch.setattr(from_video.parsers, "choose", lambda name: parser)
    for _ in range(2):
        assert preprocess([*argv, "selfie_multiclass"]) == 0
    assert times == [75]
    again = np.asarray(processed.load_clip(out).labels)
    assert (again != labels[:, :, ::-1]).mean() < 0.01  # voted on again
    assert before == {name: (out / name).stat().st_mtime_ns for name in before}
    meta = json.loads((out / "meta.json").read_text())
    assert meta["parser"] == "selfie_multiclass"
    assert meta["weights"]["other"] == files.digest(model)
    assert "selfie_segmenter" not in meta["weights"] and "face_landmarker" in meta["weights"]


def test_an_interrupted_change_of_parser_is_not_taken_for_whole(tmp_path):
    target = resume.Folder(tmp_path, {"frames": 3})
    (tmp_path / "labels.mkv").write_bytes(b"old")
    assert not target.has("layers", ["labels.mkv"], {"parser": "landmarks"})
    target.finish()
    assert target.has("layers", ["labels.mkv"], {"parser": "landmarks"})
    assert not target.has("layers", ["labels.mkv"], {"parser": "bisenet"})
    target.begin()  # as bisenet; and then the power fails
    again = resume.Folder(tmp_path, {"frames": 3})
    assert not again.has("layers", ["labels.mkv"], {"parser": "landmarks"})


@pytest.mark.parametrize("parser", ["bisenet", "selfie_multiclass"])
def test_missing_weights_of_a_parser_are_told_first(parser, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FG3DGS_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    out = tmp_path / "out"
    argv = ["--video", "none.mp4", "--out", str(out), "--consent", "self", "--parser", parser]
    assert preprocess(argv) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and parser in line and not out.exists()
