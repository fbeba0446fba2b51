"""Mouths and sound of videos: cut as from whole pictures, kept once read, moved into step."""

import os
import pathlib

import numpy as np
import pytest

from fg3dgs_jax.experts.face import face_landmarker
from fg3dgs_jax.lipsync import expert, face_tracks, sync_clips
from fg3dgs_jax.media import video
from fg3dgs_jax.weights import store
from tests import fake_avatar

RNG = np.random.default_rng(0)
SHARED = pathlib.Path(
    os.environ.get("FG3DGS_TEST_DATA", pathlib.Path(__file__).resolve().parents[3] / "shared")
)


def points(count, place, scale=1.0):
    """Landmarks of a head at `place` px: eyes and nose."""
    found = np.zeros((count, 478, 2), np.float32)
    found[:, [33, 263, 168, 2]] = (-16, -12), (16, -12), (0, -12), (0, 0)
    return found * scale + np.asarray(place)


@pytest.mark.parametrize(
    ("place", "scale"), [((90, 60), 1.0), ((12, 8), 1.0), ((150, 110), 1.0), ((80, 60), 4.0)]
)
def test_mouths_are_those_of_the_whole_picture(place, scale):
    frames = RNG.integers(0, 255, (70, 120, 160, 3), np.uint8)
    pixels = points(70, place, scale) + np.linspace(0, 3, 70)[:, None, None]
    mouths = sync_clips.cut_mouths(iter(frames), pixels)
    boxes = expert.mouth_boxes(pixels)
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * 1.25
    wide = np.concatenate([middle - half, middle + half], 1)
    whole = expert.cut(frames.astype(np.float32), wide, 72)
    assert mouths.shape == (70, 72, 72, 3) and mouths.dtype == np.uint8
    assert np.abs(mouths - np.asarray(whole)).max() < 0.51


def test_late_sound_begins_later_in_the_file():
    samples = np.arange(1, 9)
    np.testing.assert_array_equal(sync_clips.moved_back(samples, 3), [4, 5, 6, 7, 8, 0, 0, 0])
    np.testing.assert_array_equal(sync_clips.moved_back(samples, -2), [0, 0, 1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(sync_clips.moved_back(samples, 0), samples)
    assert not sync_clips.moved_back(samples, 20).any()
    assert not sync_clips.moved_back(samples, -20).any()


def test_a_video_is_read_once_and_kept(tmp_path, monkeypatch):
    samples = fake_avatar.speech(2)
    images = np.stack([fake_avatar.paint(k / 50)[0] for k in range(50)])
    path = tmp_path / "painted.mp4"
    video.write_video(path, iter(images), samples)
    tracks = []

    def detect(model_path, frames):
        count = sum(1 for _ in frames)
        seen = np.ones(count, np.int32)
        seen[[0, 7]] = 0
        pixels = points(count, (32, 32)) * seen[:, None, None]
        tracks.append(
            face_landmarker.FaceTrack(
                pixels=pixels,
                depth=np.zeros((count, 478), np.float32),
                blendshapes=np.zeros((count, 52), np.float32),
                names=(),
                rotation=np.tile(np.eye(3, dtype=np.float32), (count, 1, 1)),
                num_faces=seen,
            )
        )
        return tracks[-1]

    monkeypatch.setattr(face_landmarker, "detect", detect)
    monkeypatch.setattr(store, "require", lambda name: tmp_path / name)
    monkeypatch.setattr(
        sync_clips.audio_features, "expected_lips", lambda samples, num_frames: None
    )
    recorded = sync_clips.read(path, tmp_path / "clips")
    again = sync_clips.read(str(path), str(tmp_path / "clips"))
    assert len(tracks) == 1 and recorded.name == "painted" and recorded.late == 0.0
    # The prior finds the landmarks there, to the bit.
    kept = face_tracks.detect(video.read_video(path), tmp_path / "clips")
    assert len(tracks) == 1
    for one, two in zip(kept, tracks[0], strict=True):
        np.testing.assert_array_equal(one, two)
    for one, two in zip(recorded, again, strict=True):
        np.testing.assert_array_equal(one, two)
    # The mouth opens: dark where it was skin. A frame without a face is bridged, not black.
    assert recorded.mouths.shape == (50, 72, 72, 3) and recorded.mouths[7].mean() > 100
    assert recorded.mouths[0].mean() > recorded.mouths[-1].mean() + 10
    clip = sync_clips.sync_clip(recorded)
    assert clip.sound.shape == (50, 16, 80)


def test_a_video_without_faces_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "wall.mp4"
    images = np.full((30, 64, 64, 3), 90, np.uint8)
    video.write_video(path, iter(images), fake_avatar.speech(2)[: 30 * 640])
    nobody = face_landmarker.FaceTrack(
        np.zeros((30, 478, 2)), *(np.zeros(30),) * 4, num_faces=np.zeros(30, int)
    )
    monkeypatch.setattr(face_landmarker, "detect", lambda model_path, frames: nobody)
    monkeypatch.setattr(store, "require", lambda name: tmp_path / name)
    with pytest.raises(ValueError, match=r"wall\.mp4 shows a face in 0 of 30 frames; expected"):
        sync_clips.read(path)


def test_a_real_clip_of_a_second():
    path = next(iter(sorted((SHARED / "data" / "corpus" / "short").glob("*.mp4"))), None)
    if path is None:
        pytest.skip(f"no clips in {SHARED}/data/corpus/short")
    if store.find("face_landmarker") is None:
        pytest.skip("no weights of face_landmarker")
    recorded = sync_clips.read(path)
    clip = sync_clips.sync_clip(recorded, late=0.04)
    assert 28 <= len(clip.mouths) == len(clip.sound) <= 40
    # Skin around lips: neither black nor white, and the lips move.
    assert 30 < clip.mouths.mean() < 225 and clip.mouths.std(0).mean() > 1
