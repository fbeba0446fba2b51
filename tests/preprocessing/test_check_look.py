"""Clips with holes, disks without room, interruptions: the folder comes out right all the same."""

import errno
import json
import os
import pathlib

import numpy as np
import pytest

from fg3dgs_jax.clip import memory_map, processed, streams
from fg3dgs_jax.experts.face import face_landmarker
from fg3dgs_jax.media import video, video_writer
from fg3dgs_jax.preprocess import main as preprocess
from fg3dgs_jax.preprocessing import from_video, resume
from fg3dgs_jax.preprocessing import job as job_lib
from fg3dgs_jax.preprocessing import steps as steps_lib
from fg3dgs_jax.preprocessing.label import from_landmarks, layers
from fg3dgs_jax.preprocessing.track import head_pose

ROOT = pathlib.Path(__file__).resolve().parents[2]
MATERIAL = pathlib.Path(os.environ.get("FG3DGS_TEST_DATA", ROOT.parent / "shared"))
FRAMES = 100
BLACK = np.r_[10:13, 40, 57:62, 90]  # a tenth
SIZE = 160


@pytest.fixture
def holed(tmp_path, monkeypatch):
    """A real clip with a tenth of its pictures blacked out."""
    pytest.importorskip("mediapipe", reason="mediapipe is not installed")
    source = MATERIAL / "data" / "videos" / "obama.mp4"
    if not source.exists() or not (MATERIAL / "models" / "face_landmarker.task").exists():
        pytest.skip(f"{source} or the models in {MATERIAL}/models are absent")
    monkeypatch.setenv("FG3DGS_WEIGHTS", str(MATERIAL / "models"))
    clip = video.read_video(source, max_seconds=FRAMES / 25)
    pictures = [p * (i not in BLACK) for i, p in enumerate(clip.frames())]
    path = tmp_path / "holed.mp4"
    video_writer.write_video(path, pictures, clip.samples)
    return path


def _argv(path, out, *more):
    argv = ["--video", str(path), "--out", str(out), "--consent", "research", "--features", "mel"]
    return [*argv, "--parser", "landmarks", "--emotion", "none", "--size", str(SIZE), *more]


def _errors(capsys):
    return [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]


def test_a_holed_clip_and_a_disk_that_fills_up(holed, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    add = streams.Sinks.add

    def full(self, planes):
        if "torso" in planes:  # after everything else
            raise OSError(errno.ENOSPC, "No space left on device", "torso")
        add(self, planes)

    monkeypatch.setattr(streams.Sinks, "add", full)
    assert preprocess(_argv(holed, out)) == 1
    (line,) = _errors(capsys)
    assert "the disk is full" in line and "torso" in line and "same command" in line
    assert not list(out.glob(".*.part*")) and not (out / "meta.json").exists()
    monkeypatch.setattr(streams.Sinks, "add", add)

    def never(*_):
        raise AssertionError("a finished step was done again")

    with monkeypatch.context() as patch:
        patch.setattr(face_landmarker, "detect", never)
        assert preprocess(_argv(holed, out)) == 0
    clip = processed.load_clip(out)
    assert (clip.num_frames, clip.height, clip.width) == (FRAMES, SIZE, SIZE)
    np.testing.assert_array_equal(np.flatnonzero(~clip.landmarks_valid), BLACK)
    np.testing.assert_array_equal(np.flatnonzero(~clip.valid), BLACK)
    for array in (clip.labels, clip.torso, clip.expression, clip.audio_features("mel")):
        assert len(array) == FRAMES
    assert len(video.read_wav(out / "audio.wav")) == 640 * FRAMES
    # What is not seen is interpolated: between its neighbours, not zero.
    assert np.isfinite(clip.world_to_camera).all() and np.isfinite(clip.landmarks).all()
    steps = np.abs(np.diff(clip.world_to_camera[:, :3, 3], axis=0)).max(1)
    assert steps.max() < 0.02  # m
    assert np.abs(np.diff(clip.landmarks.mean(1), axis=0)).max() < 0.05 * SIZE
    meta = json.loads((out / "meta.json").read_text())
    assert meta["cuts"] == []
    assert len(meta["window"]) == 4 and meta["window"][2] == meta["window"][3]
    assert meta["sound"]["av_offset"] == 0 and not meta["sound"]["lateness"]["certain"]
    assert not meta["sound"]["auto"]["certain"]  # which is why the sound stays
    page = (out / "report.html").read_text()
    assert "not moved (auto): not certain" in page
    assert "usable: 90% of the frames" in page and "not certain" in page
    assert "0.40 to 0.52 s (blank), 1.60 to 1.64 s (blank)" in page
    _moved_sound(holed, out, monkeypatch, never)


def _moved_sound(holed, out, monkeypatch, never):
    """--av_offset moves the sound and leaves the pictures and what was made of them alone."""
    kept = {n: (out / n).stat().st_mtime_ns for n in ("frames.mkv", "faces.npz", "labels.mkv")}
    before, mel = video.read_wav(out / "audio.wav"), np.load(out / "audio_mel.npy")
    with monkeypatch.context() as patch:
        patch.setattr(head_pose, "fit_head", never)
        assert preprocess(_argv(holed, out, "--av_offset", "0.2")) == 0
    assert kept == {n: (out / n).stat().st_mtime_ns for n in kept}
    after = video.read_wav(out / "audio.wav")
    meta = json.loads((out / "meta.json").read_text())["sound"]
    assert meta["av_offset"] == 0.2 and meta["auto"] is None and len(after) == len(before)
    assert "moved by -0.200 s, as set" in (out / "report.html").read_text()
    a, b = before[3200:].astype(float), after[:-3200].astype(float)
    assert np.corrcoef(a, b)[0, 1] > 0.999
    assert not np.array_equal(np.load(out / "audio_mel.npy"), mel)


def test_too_little_room_is_told_before_the_work(tmp_path, monkeypatch):
    target = resume.Folder(tmp_path / "o", {"a": 1})
    target.make_room((10, 10, 10))
    with pytest.raises(resume.DiskFullError, match=r"needs about .* GB for frames.mkv.*--size"):
        target.make_room((10**9, 10**4, 10**4))
    (target.path / "frames.mkv").write_bytes(b"")
    with pytest.raises(resume.DiskFullError, match=r"GB for labels\.mkv"):
        target.make_room((10**9, 10**4, 10**4))
    for name in streams.STREAMS:
        (target.path / name).write_bytes(b"")
    target.make_room((10**9, 10**4, 10**4))


def test_other_errors_of_a_disk_keep_their_own_words(tmp_path):
    target = resume.Folder(tmp_path / "o", {})
    denied = PermissionError(errno.EACCES, "Permission denied", "x")
    assert target.explained(denied) is denied
    quota = target.explained(OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert isinstance(quota, resume.DiskFullError) and "same command" in str(quota)
    nothing = type("Usage", (), {"free": 100})()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resume.shutil, "disk_usage", lambda _: nothing)
        target.has("sound", ())
        lost = target.explained(OSError("1000 requested and 20 written"))  # numpy's, unnumbered
    assert isinstance(lost, resume.DiskFullError) and "'sound'" in str(lost)


class ScenesJob(job_lib.Job):
    """A job of 35 frames whose second scene begins at frame 17."""

    num_frames, size, cuts = 35, (4, 4), [17]

    def meta(self):
        return {"num_frames": 35, "width": 4, "height": 4, "intrinsics": (1,) * 4, "source": {}}


def test_landmarks_go_on_at_the_chunk_where_they_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(steps_lib, "FACES_CHUNK", 10)
    frames = np.full((35, 16, 16, 3), np.arange(35)[:, None, None, None] * 7, np.uint8)
    seen, begun = [], []

    def detect(_model, chunk, _fps, bar):
        numbers = [round(f.mean() / 7) for f in bar(chunk)]
        begun.append(numbers[0])
        if len(seen) == 20 and "again" not in seen:
            raise KeyboardInterrupt
        seen.extend(numbers)
        found = np.array(numbers) != 3
        names = ("a", "b") if found.any() else ()
        rows = np.array(numbers, np.float32)
        return face_landmarker.FaceTrack(
            np.tile(rows[:, None, None], (1, 478, 2)),
            np.tile(rows[:, None], (1, 478)),
            np.zeros((len(rows), 52), np.float32),
            names,
            np.tile(np.eye(3, dtype=np.float32), (len(rows), 1, 1)),
            found.astype(np.int32),
        )

    monkeypatch.setattr(steps_lib.face_landmarker, "detect", detect)
    target = resume.Folder(tmp_path / "o", {"a": 1})
    with target.streams("frames") as sinks:
        for frame in frames:
            sinks.add(streams.frame_planes(frame))
    faces = (steps_lib.FACES,)

    def job(folder):
        return ScenesJob(folder, None, "model", None, ())

    with pytest.raises(KeyboardInterrupt):
        resume.run(faces, job(target))
    target.clean(whole=False)
    assert seen == list(range(20))
    seen.append("again")
    again = job(resume.Folder(tmp_path / "o", {"a": 1}))
    resume.run(faces, again)
    track = again.track
    assert begun == [0, 10, 17, 20, 20, 30]  # another scene is begun afresh
    assert seen == [*range(20), "again", *range(20, 35)]
    np.testing.assert_array_equal(track.pixels[:, 0, 0], np.arange(35))
    assert track.names == ("a", "b") and not track.valid[3] and not list(target.path.glob(".*"))
    # For another video the chunks of an interrupted run are worth nothing.
    target.chunk("faces", 0).write_bytes(b"old")
    with resume.Folder(tmp_path / "o", {"a": 2}).at_work():
        pass
    assert not list(target.path.glob(".*chunk*"))


def test_labels_go_on_at_the_chunk_where_they_stopped(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    frames = np.zeros((35, 32, 32, 3), np.uint8)
    frames[:, 0, 0, 0] = np.arange(35)
    points = np.repeat(rng.uniform(4, 28, (1, 478, 2)), 35, 0).astype(np.float32)
    drawn = np.where(rng.random((35, 32, 32)) < 0.5, 1, 17).astype(np.uint8)
    seen = []

    class Parser:
        def parse(self, chunk, _points, _fps):
            for frame in chunk:
                if len(seen) == 27 and "again" not in seen:
                    raise KeyboardInterrupt
                seen.append(i := int(frame[0, 0, 0]))
                yield from_landmarks.Parsed(drawn[i], np.full((32, 32), i / 255, np.float32))

    def label(name, chunk, made_by="a"):
        monkeypatch.setattr(layers, "LABELS_CHUNK", chunk)
        target = resume.Folder(tmp_path / name, {"a": 1})
        target.has("layers", ["labels.mkv"], made_by)
        target.begin()
        return target, layers.label(target, Parser(), frames, points, [17])

    with pytest.raises(KeyboardInterrupt):
        label("o", 10)
    resume.Folder(tmp_path / "o", {"a": 1}).clean(whole=False)
    assert seen == [*range(12), *range(8, 22), 18]
    seen.append("again")
    target, (labels, alphas) = label("o", 10)
    assert seen[28:] == [*range(18, 32), *range(28, 35)]
    whole = label("whole", 100)[1]  # in one go
    np.testing.assert_array_equal(labels, whole[0])
    alphas = np.asarray(alphas)
    assert (alphas[:, 3, 3] == np.arange(35)).all() and not np.array_equal(labels, drawn)
    target.finish()
    assert not list(target.path.glob(".*")) and "layers" not in target._state["chunks"]
    # What another parser left is not taken up, nor what was left of another video.
    label("whole", 100)
    seen.clear()
    seen.append("again")
    label("whole", 100, "b")
    assert len(seen) == 36
    with resume.Folder(tmp_path / "whole", {"a": 2}).at_work():
        pass
    assert not list((tmp_path / "whole").glob(".*"))


def test_streaming_a_memory_map_gives_its_rows_and_its_memory_back(tmp_path):
    array = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, (400, 256, 256, 3))
    for i in range(400):
        array[i] = i % 256
        if i % 64 == 63:
            memory_map.release(array)
    memory_map.release(array)
    del array

    def mapped():  # kB of files in this process's memory
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        return next(int(x.split()[1]) for x in lines if x.startswith("RssFile"))

    array = np.load(tmp_path / "a.npy", mmap_mode="r")
    before, most = mapped(), 0
    for i, row in enumerate(memory_map.releasing(array, array)):
        assert row[0, 0, 0] == row[-1, -1, -1] == i % 256
        most = max(most, mapped())
    assert most - before < 25_000  # of 77 MB
    assert (np.load(tmp_path / "a.npy")[:, 5, 5, 1] == np.arange(400) % 256).all()


def test_cuts_are_counted_while_the_pictures_are_read(tmp_path):
    pictures = np.full((50, 64, 64, 3), 60, np.uint8)
    pictures[:, 10:30, 10:30] = 120
    pictures[20:] = 200 - pictures[20:]
    pictures[30:34] = 0  # the camera is covered: the scene stays the same
    video_writer.write_video(tmp_path / "v.mp4", pictures, np.zeros(50 * 640, np.int16))
    clip = video.read_video(tmp_path / "v.mp4")
    target = resume.Folder(tmp_path / "o", {})
    target.save("framing", [None, None])
    job = from_video.VideoJob(target, None, None, None, (), clip, 0.0, None, None)
    from_video.read(job)
    assert job.cuts == [20]
    assert job.frames.shape == (50, 64, 64, 3)
    assert np.abs(job.frames[25].astype(int) - pictures[25]).mean() < 2
