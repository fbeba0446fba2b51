"""The video check: verdicts on a real clip as it is and spoiled, and its parts."""

import dataclasses
import os
import pathlib

import cv2
import numpy as np
import pytest

from fg3dgs_jax.media import video
from fg3dgs_jax.preprocess import main as preprocess
from fg3dgs_jax.preprocessing.check import framing, look, sample
from fg3dgs_jax.preprocessing.check import verdicts as verdicts_lib

ROOT = pathlib.Path(__file__).resolve().parents[2]
MATERIAL = pathlib.Path(os.environ.get("FG3DGS_TEST_DATA", ROOT.parent / "shared"))
MODEL = MATERIAL / "models" / "face_landmarker.task"
SOURCE = MATERIAL / "data" / "videos" / "obama.mp4"
SECONDS = 8


class Spoiled:
    """A `video.Video` whose pictures are changed on the way: change(number, picture)."""

    def __init__(self, clip, change=lambda i, picture: picture, **fields):
        self._clip, self._change = clip, change
        for field in dataclasses.fields(clip):
            setattr(self, field.name, fields.get(field.name, getattr(clip, field.name)))

    def frames(self, first=0, count=None):
        for i, picture in enumerate(self._clip.frames(first, count), first):
            yield self._change(i, picture)


@pytest.fixture(scope="module")
def clip():
    pytest.importorskip("mediapipe", reason="mediapipe is not installed")
    if not (MODEL.exists() and SOURCE.exists()):
        pytest.skip(f"{MODEL} or {SOURCE} is absent")
    return video.read_video(SOURCE, max_seconds=SECONDS)


@pytest.fixture(scope="module")
def track(clip):
    """What the landmarker sees in the sample, found once."""
    kept = []
    detect = look.face_landmarker.detect

    def keep(*given):
        kept.append(detect(*given))
        return kept[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(look.face_landmarker, "detect", keep)
        taken = look.take(clip, MODEL)
    framed = look.frame_head(clip, taken)
    kept.append((*framed, look.judge(clip, taken, framed)))
    return kept


def verdicts(clip, track, monkeypatch, size=None):
    """{name: Row} of a look at a clip in which the landmarker sees `track`."""

    def seen(_model, pictures, _fps):
        assert sum(1 for _ in pictures) == len(track.pixels)
        return track

    monkeypatch.setattr(look.face_landmarker, "detect", seen)
    taken = look.take(clip, MODEL)
    framed = look.frame_head(clip, taken, size)
    return {row.name: row for row in look.judge(clip, taken, framed)}


def test_a_real_clip_is_good_but_for_its_length(track):
    window, size, rows = track[1]
    assert window is None and size is None  # small pictures are kept
    assert {r.name for r in rows if r.verdict != "good"} <= {"length", "lips and sound"}
    text = verdicts_lib.table(rows)
    assert len(text.splitlines()) == len(rows) + 1 and "2 to 5 minutes" in text
    assert rows[0].verdict == "bad" and "will show" in text.splitlines()[-1]
    assert len(rows) == 18


@pytest.mark.parametrize(
    "name, verdict, change",
    [
        ("sharpness", "usable", lambda i, p: cv2.GaussianBlur(p, (0, 0), 1.3)),
        ("sharpness", "bad", lambda i, p: cv2.GaussianBlur(p, (0, 0), 4)),
        ("light", "bad", lambda i, p: p // 4),
        ("light", "bad", lambda i, p: np.clip(p.astype(int) * 4, 0, 255).astype(np.uint8)),
        ("light", "bad", lambda i, p: (p * (0.5 + 0.5 * (i % 100) / 100)).astype(np.uint8)),
        ("cuts", "usable", lambda i, p: p if i < 90 else p[::-1, :, ::-1].copy()),
        ("cuts", "bad", lambda i, p: [p, p[::-1, :, ::-1].copy(), 255 - p][i * 3 // 200]),
        ("frame rate", "bad", lambda i, p: p if i % 2 else np.zeros_like(p)),
        ("camera", "usable", lambda i, p: np.roll(p, 4 * (i // 15 % 3), 1)),
    ],
)
def test_a_spoiled_clip_is_told_so(clip, track, monkeypatch, name, verdict, change):
    if name == "frame rate":  # every picture three times

        def change(i, picture, kept={}):  # noqa: B006
            return kept.setdefault(i // 3, picture)

    rows = verdicts(Spoiled(clip, change), track[0], monkeypatch)
    assert rows[name].verdict == verdict and rows[name].advice
    others = {n for n, r in rows.items() if r.verdict != "good"}
    assert others <= {name, "length", "lips and sound", "camera", "sharpness", "cuts", "light"}


def test_a_head_in_one_corner_is_no_camera_that_moves(clip, track, monkeypatch):
    def change(i, picture):
        picture = picture.copy()
        corner = picture[: clip.height // 4, -clip.width // 5 :]
        corner[:] = np.roll(corner, 4 * (i // 15 % 3), 1)
        return picture

    rows = verdicts(Spoiled(clip, change), track[0], monkeypatch)
    assert rows["camera"].verdict == "good" and rows["camera"].found == "fixed"


def test_faces_that_are_missing_or_too_many(clip, track, monkeypatch):
    counts = np.ones(len(track[0].num_faces), np.int32)
    counts[::10] = 0
    counts[5::10] = 2
    rows = verdicts(clip, track[0]._replace(num_faces=counts), monkeypatch)
    assert rows["face in view"].verdict == "usable" and "90%" in rows["face in view"].found
    assert rows["second faces"].verdict == "usable"
    rows = verdicts(clip, track[0]._replace(num_faces=0 * counts), monkeypatch)
    assert rows["face in view"].verdict == "bad" and "sharpness" not in rows
    nobody = look.take(clip, MODEL)
    assert look.frame_head(clip, nobody, 128) == (None, None)  # no head, no window


def test_sound_that_is_missing_clipped_or_quiet(clip, track, monkeypatch):
    silent = Spoiled(clip, samples=np.zeros_like(clip.samples))
    assert verdicts(silent, track[0], monkeypatch)["speech"].verdict == "bad"
    loud = np.clip(clip.samples.astype(int) * 12, -32768, 32767).astype(np.int16)
    assert verdicts(Spoiled(clip, samples=loud), track[0], monkeypatch)["sound level"].verdict != (
        "good"
    )
    quiet = (clip.samples // 20).astype(np.int16)
    rows = verdicts(Spoiled(clip, samples=quiet), track[0], monkeypatch)
    assert rows["sound level"].verdict == "usable" and rows["speech"].verdict == "good"


def test_a_small_face_is_cropped_when_asked_and_in_large_pictures_by_itself(clip, track):
    height, width = 1080, 1920
    pixels = track[0].pixels[::10] * 0.8 + np.array([900, 400], np.float32)
    assert framing.choose(pixels, (900, 1000)) == (None, None)
    assert framing.choose(pixels, (height, width), 0) == (None, None)
    assert framing.choose(pixels, (900, 1900), 256)[1] == 256
    (row, column, rows, columns), size = framing.choose(pixels, (height, width))
    assert size == 512 and rows == columns and not (row % 2 or column % 2 or rows % 2)
    low, high = pixels.min((0, 1)), pixels.max((0, 1))
    face = np.median(sample.face_heights(pixels))
    assert column < low[0] - 0.2 * face and column + columns > high[0] + 0.2 * face
    assert row < low[1] - 0.4 * face and row + rows > high[1] + 0.4 * face
    assert 0.38 < face / rows < 0.5
    # A head near the edge: the square stays inside.
    (row, column, rows, columns), _ = framing.choose(pixels - (850, 390), (height, width))
    assert row >= 0 and column >= 0 and row + rows <= height
    (row, column, rows, columns), _ = framing.choose(pixels, (400, 3000))
    assert (row, rows) == (0, 400)


def test_the_sample_has_the_stretch_with_most_speech_and_bursts_all_over():
    samples = np.zeros(3000 * 640, np.int16)
    noise = np.random.default_rng(0).normal(size=900 * 640) * 3000
    samples[1500 * 640 : 2400 * 640] = noise
    pieces = sample.plan(3000, samples)
    assert pieces == sorted(pieces) and pieces[0][0] == 0 and sum(pieces[-1]) == 3000
    (stretch,) = [p for p in pieces if p[1] == sample.STRETCH]
    assert 1490 <= stretch[0] and sum(stretch) <= 2410
    ends = [first + count for first, count in pieces]
    assert all(end <= first for end, (first, _) in zip(ends, pieces[1:], strict=False))
    assert sample.plan(60, samples[: 60 * 640]) == [(0, 60)]


def test_blinks_are_closings_of_both_eyes():
    points = np.zeros((100, 478, 2))
    for top, bottom, _, b in ((159, 145, 33, 133), (386, 374, 362, 263)):
        points[:, b, 0] = 30
        points[:, bottom, 1] = 10
        points[20:24, bottom, 1] = points[60:63, bottom, 1] = 2
        points[40:43, bottom, 1] = 2 if top == 159 else 10  # a wink
    assert verdicts_lib.count_blinks(points, np.arange(100)) == 2
    assert verdicts_lib.count_blinks(points, np.arange(100) + 50 * (np.arange(100) > 61)) == 3


def test_check_only_prints_the_table_and_writes_nothing(clip, monkeypatch, capfd, tmp_path):
    monkeypatch.setenv("FG3DGS_WEIGHTS", str(MODEL.parent))
    monkeypatch.chdir(tmp_path)
    argv = ["--video", str(SOURCE), "--check_only", "--max_seconds", "2"]
    assert preprocess(argv) == 0
    out, errors = capfd.readouterr()  # of C++ too
    assert "face size" in out and out.splitlines()[-1].startswith("=> ")
    # Nothing but the bar, and that before the table.
    assert all(line.startswith("video check: ") for line in errors.splitlines())
    assert list(tmp_path.iterdir()) == []
    assert preprocess(["--video", str(tmp_path / "none.mp4"), "--check_only"]) == 1


@pytest.mark.parametrize(
    "extra",
    [
        ["--size", "10"],
        ["--size", "x"],
        ["--av_offset", "9"],
        ["--av_offset", "nan"],
        ["--av_offset", "x"],
        ["--max_seconds", "nan"],
        ["--max_seconds", "inf"],
        ["--audio_track", "0"],
    ],
)
def test_flags_out_of_range_are_usage_errors(extra):
    argv = ["--video", "v", "--out", "o", "--consent", "self"]
    with pytest.raises(SystemExit) as caught:
        preprocess([*argv, *extra])
    assert caught.value.code == 2
    with pytest.raises(SystemExit):
        preprocess(["--video", "v", "--consent", "self"])  # no --out
