"""Frames that are not the person: painted over the embedded subject, they change nothing."""

import json

import cv2
import numpy as np
import pytest

from fg3dgs_jax.avatar.subject import open_subject
from fg3dgs_jax.clip import format, processed
from fg3dgs_jax.experts.face import face_landmarker
from fg3dgs_jax.media import video_writer
from fg3dgs_jax.preprocess import main as preprocess
from fg3dgs_jax.preprocessing import from_video
from fg3dgs_jax.preprocessing.check import sample
from fg3dgs_jax.preprocessing.label import from_landmarks
from fg3dgs_jax.preprocessing.report import page
from fg3dgs_jax.preprocessing.scene import choice, looks, words
from fg3dgs_jax.preprocessing.track.head_pose import RIGID
from fg3dgs_jax.synthetic import landmarks as synthetic_landmarks
from fg3dgs_jax.training import batches
from tests import fake_avatar

TITLE, FADE = 12, 25  # frames


@pytest.fixture(scope="module")
def clip(subject):
    return processed.load_clip(subject)


def black(clip, count):
    return np.full((count, *clip.frames.shape[1:]), 2, np.uint8)


def title(clip, count):
    picture = np.full(clip.frames.shape[1:], 30, np.uint8)
    cv2.putText(picture, "A title", (10, clip.height // 2), 0, 0.9, (240, 230, 60), 3)
    return np.repeat(picture[None], count, 0)


def street(clip, count):
    """Another scene, without a face, in which things move."""
    rng = np.random.default_rng(7)
    wall = cv2.resize(rng.integers(0, 256, (9, 9, 3), np.uint8), (clip.width, clip.height))
    return np.stack([np.roll(wall, 3 * k, 1) for k in range(count)])


def fade(frames, start=0.0, colour=0):
    """Frames that come out of a colour."""
    share = np.linspace(start, 1, len(frames), endpoint=False)[:, None, None, None]
    return np.rint(colour + share * (frames.astype(float) - colour)).astype(np.uint8)


def stranger(clip, frames):
    """The same room with another person in the same place: hair, skin and features of others."""
    head = from_landmarks.head_mask(clip.labels[frames])[..., None]
    skin = (clip.labels[frames] == format.LABELS["skin"])[..., None]
    other = clip.frames[frames][..., ::-1] // 2
    return np.where(skin, other, np.where(head, 150, clip.frames[frames]))


def shown(clip, parts):
    """(frames, points, bool with a face) of parts: (pictures, numbers of the subject's frames)."""
    frames = np.concatenate([np.asarray(pictures) for pictures, _ in parts])
    numbers = np.concatenate(
        [np.full(len(p), -1) if n is None else np.arange(*n) for p, n in parts]
    )
    return frames, clip.landmarks[numbers], numbers >= 0


def recipes(clip):
    """{name: (parts, [first, last + 1, why] that must go, further frames that may go)}."""
    own = clip.frames
    reverse = own[FADE:0:-1]
    end, middle = len(own), 30

    def part(a, b):
        return own[a:b], (a, b)

    dissolve = np.linspace(0, 1, 20)[:, None, None, None]
    mixed = (1 - dissolve) * own[30:50] + dissolve * street(clip, 20)
    return {
        "clean": ([part(0, end)], [], 0),
        "black": ([(black(clip, 1), None), part(0, end)], [(0, 1, "blank")], 0),
        "flash": (
            [part(0, middle), (255 - black(clip, 1), None), part(middle, end)],
            [(middle, middle + 1, "blank")],
            0,
        ),
        "title": ([(title(clip, TITLE), None), part(0, end)], [(0, TITLE, "another scene")], 0),
        "fade": ([(fade(reverse), (0, FADE)), part(0, end)], [(2, FADE - 2, "fade")], 10),
        "white": (
            [(fade(reverse, 0.0, 255), (0, FADE)), part(0, end)],
            [(2, FADE - 2, "fade")],
            10,
        ),
        "insert": (
            [part(0, middle), (street(clip, 20), None), part(middle, end)],
            [(middle, middle + 20, "another scene")],
            0,
        ),
        "dissolve": (
            [part(0, 30), (mixed.astype(np.uint8), (30, 50)), (street(clip, 10), None)],
            [(36, 60, "another scene")],
            10,
        ),
        "other": (
            [part(0, 35), (255 - own[35:], (35, end))],
            [(35, end, "another scene")],
            0,
        ),
        "stranger": (
            [part(0, 35), (stranger(clip, slice(35, end)), (35, end))],
            [(35, end, "another face")],
            0,
        ),
        "away": (
            [part(0, 40), (np.repeat(clip.background[None], 30, 0), None), part(40, end)],
            [(40, 70, "no face")],
            0,
        ),
        "hidden": ([part(0, 30), (own[30:40], None), part(40, end)], [], 0),
    }


NAMES = "clean black flash title fade white insert dissolve other stranger away hidden".split()


@pytest.mark.parametrize("name", NAMES)
def test_frames_of_something_else_are_left_out(clip, name):
    parts, expected, may_go = recipes(clip)[name]
    frames, points, face = shown(clip, parts)
    seen = looks.look(frames, points, face)
    cuts = list(sample.cuts_in(seen.thumbs))
    spans = choice.choose(choice.Seen(seen, points, face, cuts))
    own = format.own_frames(len(frames), spans)
    must = ~format.own_frames(len(frames), expected)
    assert not (own & must).any(), spans
    assert (~own & ~must).sum() <= may_go, spans
    for first, stop, why in expected:
        assert why in {s.why for s in spans if s.first < stop and s.stop > first}, spans


def test_the_user_is_told_what_is_left_out_and_how_to_take_another_scene():
    spans = [choice.Span(0, 50, "blank"), choice.Span(125, 250, "another face")]
    others = choice.others(spans, np.ones(300, bool), [125, 190])
    assert others == [(125, 190), (190, 250)]
    first, second = words.lines(spans, others, 300, start=10.0)
    assert "175 of 300 frames are left out" in first
    assert "10.00 to 12.00 s (blank), 15.00 to 20.00 s (another face)" in first
    assert "--start 15.00 --end 17.60 or --start 17.60 --end 20.00" in second
    assert not words.lines([], [], 300)


class Landmarker:
    """Stands for MediaPipe's: knows the subject's landmarks by the picture that it is shown."""

    def __init__(self, clip, parts):
        frames, self.points, self.face = shown(clip, parts)
        self.turns = clip.world_to_camera[:, :3, :3]
        self.numbers = np.concatenate(
            [np.zeros(len(p), int) if n is None else np.arange(*n) for p, n in parts]
        )
        self.thumbs = np.stack([sample.thumb(frame) for frame in frames])
        still = synthetic_landmarks.still_coordinates()
        scale = np.ptp(self.points[..., 0], 1)[:, None] / np.ptp(still[:, 0])
        self.depth = -scale * np.sqrt(np.maximum(0.13**2 - (still**2).sum(-1), 0))

    def detect(self, _model, frames, _fps=25, progress=iter):
        thumbs = [sample.thumb(frame) for frame in progress(frames)]
        at = np.array([int(np.abs(self.thumbs - x).mean((1, 2)).argmin()) for x in thumbs])
        face = self.face[at]
        names = (
            "browInnerUp browDownLeft browDownRight eyeWideLeft eyeWideRight cheekSquintLeft "
            "cheekSquintRight eyeSquintLeft eyeSquintRight eyeBlinkLeft eyeBlinkRight "
            "eyeLookOutLeft eyeLookInRight eyeLookInLeft eyeLookOutRight eyeLookUpLeft "
            "eyeLookUpRight eyeLookDownLeft eyeLookDownRight"
        ).split()
        return face_landmarker.FaceTrack(
            pixels=np.where(face[:, None, None], self.points[at], 0),
            depth=np.where(face[:, None], self.depth[at], 0).astype(np.float32),
            blendshapes=np.zeros((len(at), len(names)), np.float32),
            names=tuple(names),
            rotation=self.turns[self.numbers[at]].astype(np.float32),
            num_faces=face.astype(np.int32),
        )


def made(tmp_path, monkeypatch, clip, parts, *flags):
    """The processed folder that the program makes of a video of `parts`."""
    frames, _, _ = shown(clip, parts)
    rng = np.random.default_rng(0)
    sound = np.concatenate(
        [rng.normal(0, 3000 if n else 9000, len(p) * 640) for p, n in parts]
    ).astype(np.int16)
    video_writer.write_video(tmp_path / "v.mp4", frames, sound, crf=4)
    landmarker = Landmarker(clip, parts)
    labels = [clip.labels[landmarker.numbers], landmarker.thumbs]

    def parse(pictures, points, fps, progress):
        for picture in pictures:
            at = int(np.abs(labels[1] - sample.thumb(picture)).mean((1, 2)).argmin())
            yield from_landmarks.Parsed(labels[0][at], np.float32(labels[0][at] > 0))

    parser = from_video.parsers.FaceParser("landmarks", {}, parse)
    monkeypatch.setattr(face_landmarker, "detect", landmarker.detect)
    monkeypatch.setattr(from_video.parsers, "choose", lambda name: parser)
    model = tmp_path / "face_landmarker.task"
    model.write_bytes(b"a model")
    monkeypatch.setattr(from_video.store, "require", lambda name: model)
    out = tmp_path / "folder"
    argv = ["--video", str(tmp_path / "v.mp4"), "--out", str(out), "--consent", "licensed"]
    assert preprocess([*argv, "--features", "mel", "--emotion", "none", *flags]) == 0
    return processed.load_clip(out)


def projected(clip):
    """Pixels [T, R, 2] at which the poses put the head that was fitted with them."""
    with np.load(clip.path / "camera.npz") as fields:
        head, focal = fields["head_points"], float(fields["focal"])
    return page.project(clip.world_to_camera, head[RIGID], focal, np.full(2, clip.width / 2))


def test_a_title_and_a_fade_change_neither_plate_nor_poses(tmp_path, monkeypatch, clip, capsys):
    count, lead = len(clip.frames), 1 + TITLE + FADE
    person = (clip.frames, (0, count))
    parts = [
        (black(clip, 1), None),
        (title(clip, TITLE), None),
        (fade(clip.frames[FADE:0:-1]), (0, FADE)),
        person,
    ]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    plain = made(tmp_path / "a", monkeypatch, clip, [person])
    assert plain.own.all() and "left out" not in capsys.readouterr().out
    spoiled = made(tmp_path / "b", monkeypatch, clip, parts)
    output = capsys.readouterr().out
    assert "frames are left out" in output and "0.00 to 0.04 s (blank)" in output
    own = spoiled.split("all")
    assert len(spoiled.frames) == lead + count and lead <= own[0] <= lead + 6
    off = spoiled.background.astype(float) - plain.background
    assert 10 * np.log10(255**2 / (off**2).mean()) > 45
    fitted, expected = projected(spoiled)[own], projected(plain)[own - lead]
    assert np.linalg.norm(fitted - expected, axis=-1).max() < 0.5  # px
    torso = spoiled.torso[own].astype(float) - plain.torso[own - lead]
    assert np.abs(torso).mean() < 1
    left_out = spoiled.torso[: own[0]], spoiled.labels[: own[0]]
    assert not any(np.asarray(pictures).any() for pictures in left_out)
    meta = json.loads((spoiled.path / "meta.json").read_text())
    assert meta["left_out"][0] == [0, 1, "blank"] and meta["split"]["train"][0] == own[0]
    assert abs(meta["sound"]["gain_db"] - plain.meta["sound"]["gain_db"]) < 0.5
    report = (spoiled.path / "report.html").read_text()
    assert "do not show the person" in report and f"<td>{own[0]}</td>" in report
    later = made(tmp_path / "b", monkeypatch, clip, parts, "--start", f"{lead / 25:.2f}")
    assert later.num_frames == count and later.own.all()
    assert later.meta["source"]["start"] == lead / 25
    assert np.abs(np.asarray(later.frames, int) - plain.frames).mean() < 2


def test_a_clip_that_is_short_without_other_scenes_is_refused(clip):
    with pytest.raises(ValueError, match=r"has 1\.20 s in which its person is seen"):
        from_video.steps.check_length(np.arange(60) < 30)


def with_left_out(folder, left_out):
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {"left_out": left_out}))


def test_left_out_frames_lend_nothing(tmp_path):
    """Neither to splits nor to new speech; folders made before have none."""
    folder = fake_avatar.make_folder(tmp_path / "clip", seconds=4)
    before = processed.load_clip(folder)
    assert before.own.all() and (before.split("train") == np.arange(90)).all()
    with_left_out(folder, [[0, 10, "fade"], [40, 50, "another scene"], [70, 72, "blank"]])
    clip = processed.load_clip(folder)
    assert len(clip.split("all")) == 78 and clip.split("train")[0] == 10
    assert (np.concatenate([clip.split("train"), clip.split("test")]) == clip.split("all")).all()
    assert (clip.shot("all") == np.arange(10, 40)).all()
    learnt = np.flatnonzero(batches.learnt_frames(clip))
    assert set(learnt) == set(clip.split("train")) and 45 not in learnt
    subject = open_subject(fake_avatar.Avatar(folder))
    poses = subject.speak(np.zeros(120 * 640, np.int16)).poses
    assert set(poses) == set(range(10, 40)) and np.abs(np.diff(poses)).max() == 1
