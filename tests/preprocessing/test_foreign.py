"""Another project's folder: what becomes of it, its known defects, and what is refused."""

import json

import cv2
import numpy as np
import pytest

from fg3dgs_jax.clip import format, processed
from fg3dgs_jax.config.defaults import Data
from fg3dgs_jax.experts.face import face_landmarker
from fg3dgs_jax.media import video
from fg3dgs_jax.preprocess import main as preprocess
from fg3dgs_jax.preprocessing import from_folder
from fg3dgs_jax.preprocessing.express import channels, openface
from fg3dgs_jax.preprocessing.foreign import labels as labels_lib
from fg3dgs_jax.preprocessing.foreign import layout
from fg3dgs_jax.preprocessing.track import head_pose
from fg3dgs_jax.synthetic import subject
from fg3dgs_jax.training import batches
from fg3dgs_jax.weights import store

UNIT = 0.4  # m of the test's folder
COLOURS = {0: (255, 255, 255), 11: (100, 100, 100), 14: (0, 255, 0), 16: (255, 0, 0), 17: (0,) * 3}
COLOURS |= {19: COLOURS[11], 15: COLOURS[14]}  # teeth are in the mouth
HEAD = (0, 0, 255)


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    path = tmp_path_factory.mktemp("truth") / "person"
    subject.make_clip(path, seconds=1.76, size=96)  # 44 frames: 40 and 4
    return processed.load_clip(path)


def write(truth, path):
    """The clip as TalkingGaussian's preprocessing leaves it."""
    for name in ("ori_imgs", "parsing", "torso_imgs", "teeth_mask"):
        (path / name).mkdir(parents=True)
    best = [cv2.IMWRITE_JPEG_QUALITY, 100]
    cv2.imwrite(str(path / "bc.jpg"), truth.background[..., ::-1], best)
    for i in range(truth.num_frames):
        cv2.imwrite(str(path / "ori_imgs" / f"{i}.jpg"), truth.frames[i][..., ::-1], best)
        (path / "ori_imgs" / f"{i}.lms").write_text("0 0\n" * 68)
        colours = np.full((*truth.labels[i].shape, 3), HEAD, np.uint8)
        for label, colour in COLOURS.items():
            colours[truth.labels[i] == label] = colour
        cv2.imwrite(str(path / "parsing" / f"{i}.png"), colours[..., ::-1])
        torso = truth.torso[i][..., [2, 1, 0, 3]]
        cv2.imwrite(str(path / "torso_imgs" / f"{i}.png"), torso)
        np.save(path / "teeth_mask" / f"{i}.npy", truth.labels[i] == 19)
    write_poses(truth, path, range(truth.num_frames))
    samples = video.read_wav(truth.path / "audio.wav")
    video.write_wav(path / "aud.wav", samples)
    np.save(path / "aud.npy", np.ones((truth.num_frames, 16, 29), np.float32))
    np.save(path / "aud_hu.npy", np.ones((truth.num_frames - 5, 2, 1024), np.float32))
    columns = dict.fromkeys(openface.INTENSITIES, np.ones(truth.num_frames))
    rows = [", ".join(map(str, r)) for r in zip(*columns.values(), strict=True)]
    (path / "au.csv").write_text("\n".join([", ".join(columns), *rows]))
    return path


def write_poses(truth, path, frames, names=None):
    """Cameras as published: c2w = [R' | -R' t] where u = -f X / Z + cx, v = f Y / Z + cy."""
    fx, _, cx, cy = truth.intrinsics
    table = []
    for i, name in zip(frames, names or frames, strict=True):
        ours = truth.world_to_camera[i].astype(np.float64)
        turn = np.diag([1.0, -1.0, -1.0])
        rotation, move = turn @ ours[:3, :3] @ turn, turn @ ours[:3, 3] / UNIT
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = rotation.T, -rotation.T @ move
        table.append({"img_id": name, "aud_id": name, "transform_matrix": matrix.tolist()})
    cut = int(len(table) * 10 / 11)
    for split, part in (("train", table[:cut]), ("val", table[cut:])):
        text = json.dumps({"focal_len": fx, "cx": cx, "cy": cy, "frames": part})
        (path / f"transforms_{split}.json").write_text(text)


@pytest.fixture
def theirs(truth, tmp_path):
    return write(truth, tmp_path / "theirs")


@pytest.fixture(autouse=True)
def landmarker(truth, tmp_path, monkeypatch):
    """The truth's landmarks in the place of a network's."""
    wanted = {n for parts in channels.ACTION_UNITS.values() for n in parts}
    wanted |= {n for pair in channels.GAZE.values() for part in pair for n in part}
    names = tuple(sorted(wanted))

    def detect(model, frames, fps, progress=iter):
        assert len([f for f in progress(frames)]) == truth.num_frames
        return face_landmarker.FaceTrack(
            pixels=truth.landmarks,
            depth=np.zeros(truth.landmarks.shape[:2], np.float32),
            blendshapes=np.zeros((truth.num_frames, len(names)), np.float32),
            names=names,
            rotation=np.tile(np.eye(3, dtype=np.float32), (truth.num_frames, 1, 1)),
            num_faces=np.ones(truth.num_frames, np.int32),
        )

    model = tmp_path / "face_landmarker.task"
    model.write_bytes(b"model")
    monkeypatch.setattr(face_landmarker, "detect", detect)
    monkeypatch.setattr(store, "require", lambda name: model)
    monkeypatch.setattr(store, "find", lambda name: None)


def run(source, out):
    argv = ["--import", str(source), "--out", str(out), "--consent", "self", "--features", "mel"]
    return preprocess(argv)


def meta(out):
    return json.loads((out / "meta.json").read_text())["imported"]


def head_points(truth):
    """[P, 3] rigid points of the head in the truth's frame, from the truth's cameras."""
    fx, _, cx, cy = truth.intrinsics
    poses = {i: np.linalg.inv(p.astype(np.float64)) for i, p in enumerate(truth.world_to_camera)}
    turn = np.diag([1.0, -1.0, -1.0, 1.0])
    poses = {i: turn @ p @ turn for i, p in poses.items()}
    seen = np.ones(truth.num_frames, bool)
    found = from_folder.poses.track(
        poses, truth.num_frames, (fx, cx, cy), truth.landmarks, seen, truth.height
    )
    return (found.points / found.scale + found.origin)[head_pose.RIGID]


def test_the_result_is_a_processed_folder(truth, theirs, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(theirs, out) == 0
    told = capsys.readouterr().out
    clip = processed.load_clip(out)
    assert clip.num_frames == 44 and clip.valid.all() and clip.intrinsics == truth.intrinsics
    frames, torso = np.asarray(clip.frames, int), np.asarray(clip.torso, int)
    assert np.abs(frames - truth.frames).mean() < 2  # JPEG
    opaque = truth.torso[..., 3:] > 0
    difference = np.abs(torso - np.where(opaque, truth.torso, 0))
    assert difference.mean() < 0.5 and difference[..., 3].max() < 16
    np.testing.assert_array_equal(torso[..., 3] == 255, truth.torso[..., 3] == 255)
    found = meta(out)
    assert found["split_kept"] and found["split"] == {"train": [0, 40], "val": [40, 44]}
    # The poses show the truth's head points where the truth's own do.
    points = head_points(truth)
    moved = found["metres_per_unit"] / UNIT * (points - UNIT * np.array(found["origin"]))
    focal, centre = truth.intrinsics[0], np.array(truth.intrinsics[2:])
    project = projection(focal, centre)
    off = project(clip.world_to_camera, moved) - project(truth.world_to_camera, points)
    assert np.abs(off).max() < 0.05
    off = project(clip.world_to_camera, moved) - clip.landmarks[:, head_pose.RIGID]
    assert np.linalg.norm(off, axis=-1).mean() < 1
    assert 0.6 < clip.world_to_camera[:, 2, 3].mean() < 1.3
    assert found["metres_per_unit"] == pytest.approx(UNIT, rel=0.3)
    # aud.npy is told by its shape; too short features are filled up, and both are said.
    assert found["features"] == ["deepspeech", "hubert"]
    assert clip.audio_features("hubert").shape == (44, 2, 1024)
    assert "aud.npy has the windows of deepspeech" in told and "39 rows for 44 frames" in told
    assert clip.expression_channels(["AU01"]) == pytest.approx(0.2)
    batches.device_clip(clip, Data(audio_extractor="deepspeech", expression=("AU01", "AU45")))
    assert "put right" in told and (out / "report.html").exists()


def projection(focal, centre):
    def project(matrices, points):
        camera = points @ matrices[:, :3, :3].swapaxes(1, 2) + matrices[:, None, :3, 3]
        return focal * camera[..., :2] / camera[..., 2:] + centre

    return project


def test_labels(truth, theirs, tmp_path):
    out = tmp_path / "out"
    assert run(theirs, out) == 0
    labels = np.asarray(processed.load_clip(out).labels)
    for name in ("background", "neck", "cloth", "hair", "mouth", "teeth"):
        kind = format.LABELS[name]
        np.testing.assert_array_equal(labels == kind, truth.labels == kind, err_msg=name)
    same = format.EYE_LABELS
    both = (np.isin(labels, same) & np.isin(truth.labels, same)).sum()
    either = (np.isin(labels, same) | np.isin(truth.labels, same)).sum()
    assert both / either > 0.6  # eyes are in no colour: they are the landmarks'


def test_folders_whose_mouth_and_hair_are_head(truth):
    """AD-NeRF's and ER-NeRF's: the mouth comes from the landmarks."""
    i = int(truth.mouth_openings().argmax())
    colours = np.full((96, 96, 3), HEAD, np.uint8)
    colours[truth.labels[i] == 0] = 255
    found, unknown = labels_lib.classes(colours)
    assert unknown == 0
    labels = labels_lib.labels_of(truth.frames[i], truth.landmarks[i], found)
    mouth = np.isin(labels, format.MOUTH_LABELS)
    true = np.isin(truth.labels[i], format.MOUTH_LABELS)
    assert (mouth & true).sum() / (mouth | true).sum() > 0.5
    assert labels_lib.classes(np.full((2, 2, 3), (255, 255, 0), np.uint8))[1] == 1


def test_poses_that_skip_frames_without_landmarks_go_back_in_place(truth, theirs, tmp_path):
    """Their tracker passes over such frames and numbers the rest anew."""
    kept = [i for i in range(44) if i not in (7, 8, 20)]
    for i in (7, 8, 20):
        (theirs / "ori_imgs" / f"{i}.lms").unlink()
    write_poses(truth, theirs, kept, range(len(kept)))
    out = tmp_path / "out"
    assert run(theirs, out) == 0
    clip, found = processed.load_clip(out), meta(out)
    assert np.flatnonzero(~clip.valid).tolist() == [7, 8, 20]
    assert any("7-8, 20" in d and "no .lms" in d for d in found["defects"])
    np.testing.assert_allclose(
        clip.world_to_camera[:, :3, :3], truth.world_to_camera[:, :3, :3], atol=0.02
    )
    assert found["split_kept"] and not any("the split" in d for d in found["defects"])


def test_a_split_that_is_not_ours_is_said(theirs):
    tables = [json.loads((theirs / f"transforms_{s}.json").read_text()) for s in ("train", "val")]
    tables[1]["frames"] += tables[0]["frames"][-10:]
    del tables[0]["frames"][-10:]
    for split, table in zip(("train", "val"), tables, strict=True):
        (theirs / f"transforms_{split}.json").write_text(json.dumps(table))
    spans, kept = from_folder.split_facts(layout.open_source(theirs))
    assert spans == {"train": [0, 30], "val": [30, 44]} and not kept


def test_every_missing_file_is_named_at_once(theirs, tmp_path, capsys, monkeypatch):
    lost = "bc.jpg transforms_val.json aud.wav parsing/3.png parsing/4.png parsing/9.png"
    for name in (*lost.split(), "torso_imgs/0.png", "ori_imgs/12.jpg"):
        (theirs / name).unlink()

    def require(name):
        raise store.WeightsMissing(f"{name} is not there")

    monkeypatch.setattr(store, "require", require)
    assert run(theirs, tmp_path / "out") == 1
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    named = "bc.jpg transforms_val.json aud.wav parsing/3-4.png parsing/9.png torso_imgs/0.png"
    for name in (*named.split(), "ori_imgs/12.jpg", "landmarker is not there"):
        assert name in line
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_is_refused_in_one_line(truth, theirs, tmp_path, capsys):
    def refused(words):
        assert run(theirs, tmp_path / "out") == 1
        lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
        assert len(lines) == 1 and words in lines[0], lines
        assert not (tmp_path / "out").exists()

    np.save(theirs / "aud_eo.npy", np.zeros((44, 16, 29), np.float32))
    refused("the windows of wav2vec2")
    (theirs / "aud_eo.npy").unlink()
    write_poses(truth, theirs, range(43, -1, -1), range(44))  # of other frames
    table = json.loads((theirs / "transforms_train.json").read_text())
    for frame in table["frames"]:
        matrix = np.array(frame["transform_matrix"])
        matrix[:3, 3] *= 1 + frame["img_id"] / 10
        frame["transform_matrix"] = matrix.tolist()
    (theirs / "transforms_train.json").write_text(json.dumps(table))
    refused("not of one clip")
    (theirs / "transforms_train.json").write_text("{")
    refused("transforms_train.json cannot be read")
    write_poses(truth, theirs, range(44))
    (theirs / "torso_imgs" / "5.png").write_bytes(b"no picture")
    refused("5.png cannot be read")
    with pytest.raises(layout.SourceError, match="not a folder"):
        layout.open_source(tmp_path / "none")


def test_flags_that_go_with_videos_only(theirs, tmp_path):
    for more in (["--size", "256"], ["--check_only"], ["--parser", "bisenet"]):
        with pytest.raises(SystemExit):
            preprocess(["--import", str(theirs), "--out", str(tmp_path / "o"), *more])
