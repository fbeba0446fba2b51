"""The embedded subject: its folder is valid, its truth agrees with itself, and the sound tells
the mouth."""

import hashlib
import wave

import cv2
import numpy as np
import pytest

from fg3dgs_jax.clip import format, processed
from fg3dgs_jax.clip import landmarks as landmarks_lib
from fg3dgs_jax.media import clock
from fg3dgs_jax.synthetic import landmarks
from fg3dgs_jax.synthetic import subject as subject_lib

SECONDS, SIZE = 2.4, 128  # of conftest's subject


@pytest.fixture(scope="module")
def clip(subject):
    return processed.load_clip(subject)


def label_height(labels, classes):
    return np.isin(labels, classes).sum(1).max(1)


def test_folder_follows_the_schema(clip):
    frames = round(SECONDS * clock.FPS)
    assert clip.frames.shape == (frames, SIZE, SIZE, 3) and clip.frames.dtype == np.uint8
    assert clip.torso.shape == (frames, SIZE, SIZE, 4) and clip.torso.dtype == np.uint8
    assert clip.labels.dtype == np.uint8 and clip.background.shape == (SIZE, SIZE, 3)
    assert clip.landmarks.shape == (frames, 478, 2) and np.isfinite(clip.landmarks).all()
    assert (
        clip.expression.shape == (frames, len(clip.expression_names))
        and clip.expression_names[-1] == "AU45"
    )
    assert clip.audio_features("loud").shape == (frames, 1, 1)
    gaze = np.char.startswith(clip.expression_names, "gaze")
    assert np.abs(clip.expression[:, gaze]).max() <= 1
    assert clip.expression[:, ~gaze].min() >= 0 and clip.expression[:, ~gaze].max() <= 1
    with wave.open(str(clip.path / "audio.wav")) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (16_000, 1, 2)
        assert sound.getnframes() == frames * 640
    for name in (
        "skin",
        "left_brow",
        "right_brow",
        "left_eye",
        "right_eye",
        "nose",
        "upper_lip",
        "lower_lip",
        "hair",
    ):
        assert (clip.labels == format.LABELS[name]).any((1, 2)).mean() > 0.8, name
    for name in ("neck", "cloth", "mouth", "teeth", "left_ear", "right_ear"):
        assert (clip.labels == format.LABELS[name]).any(), name


def test_same_seed_gives_the_same_bytes(tmp_path):
    def digest(name, seed):
        path = subject_lib.make_clip(tmp_path / name, seed=seed, seconds=0.12, size=64)
        return [
            hashlib.sha256((path / f).read_bytes()).hexdigest()
            for f in ("frames.npy", "audio.wav", "labels.npy")
        ]

    first = digest("a", 5)
    assert first == digest("b", 5)
    assert all(x != y for x, y in zip(first, digest("c", 6), strict=True))


def test_frames_are_torso_over_plate_outside_the_head(clip):
    head = np.isin(clip.labels, format.HEAD_LABELS).astype(np.uint8)
    near = np.stack([cv2.dilate(h, np.ones((3, 3), np.uint8)) for h in head]) > 0
    difference = np.abs(clip.frames.astype(int) - clip.backgrounds()).max(-1)
    assert (
        difference[~near] > 1
    ).mean() < 5e-4  # single strands of hair that cover less than half a pixel
    assert np.median(difference[head > 0]) > 20


def test_camera_projects_the_head_where_it_is_drawn(clip):
    fx, fy, cx, cy = clip.intrinsics
    rotation = clip.world_to_camera[:, :3, :3]
    np.testing.assert_allclose(
        rotation @ rotation.transpose(0, 2, 1),
        np.tile(np.eye(3), (clip.num_frames, 1, 1)),
        atol=1e-5,
    )
    assert np.linalg.det(rotation).min() > 0
    assert np.degrees(np.arccos((np.trace(rotation, axis1=1, axis2=2) - 1) / 2)).max() < 16
    origin = clip.world_to_camera[:, :3, 3]
    assert np.abs(origin[:, 2] - 1).max() < 0.1
    middle = np.stack(
        [fx * origin[:, 0] / origin[:, 2] + cx, fy * origin[:, 1] / origin[:, 2] + cy], -1
    )
    head = np.isin(clip.labels, format.HEAD_LABELS)
    rows, cols = head.any(2), head.any(1)
    box = [
        [(c.argmax() + len(c) - c[::-1].argmax()) / 2, (r.argmax() + len(r) - r[::-1].argmax()) / 2]
        for r, c in zip(rows, cols, strict=True)
    ]
    assert np.abs(middle - box).max() < 0.05 * SIZE
    assert 0.4 < rows.sum(1).mean() / SIZE < 0.75


def test_outlines_lie_on_their_labels(clip):
    height = label_height(clip.labels, format.MOUTH_LABELS)
    assert np.corrcoef(height, clip.mouth_openings())[0, 1] > 0.95
    for outline, classes in (
        (landmarks_lib.OUTER_LIPS, (11, 12, 13, 19)),
        (landmarks_lib.LEFT_EYE, (4,)),
        (landmarks_lib.RIGHT_EYE, (5,)),
    ):
        for points, labels in zip(clip.landmarks[::7, outline], clip.labels[::7], strict=True):
            area = cv2.contourArea(points.astype(np.float32))
            drawn = np.isin(labels, classes).sum()
            assert abs(area - drawn) < 0.25 * area + 8, (classes, area, drawn)
            if drawn:
                rows, cols = np.nonzero(np.isin(labels, classes))
                np.testing.assert_allclose(
                    points.mean(0), [cols.mean() + 0.5, rows.mean() + 0.5], atol=1.5
                )


def test_person_sides(clip):
    left, right = (
        clip.landmarks[:, landmarks_lib.LEFT_EYE].mean(1),
        clip.landmarks[:, landmarks_lib.RIGHT_EYE].mean(1),
    )
    mouth = clip.landmarks[:, landmarks_lib.INNER_LIPS].mean(1)
    assert (left[:, 0] > right[:, 0] + 0.1 * SIZE).all()
    assert (mouth[:, 1] > left[:, 1] + 0.1 * SIZE).all()
    assert len(set(landmarks.RIGHT_BROW) | set(landmarks.LEFT_BROW)) == 20


def test_blinks_close_the_eyes(clip):
    blink = clip.expression_channels(["AU45"])[:, 0]
    area = np.isin(clip.labels, format.EYE_LABELS).sum((1, 2))
    assert (blink == 1).any() and (blink == 0).any()
    assert area[blink == 1].max() < 0.15 * area[blink == 0].mean()


def test_sound_tells_the_mouth():
    samples, shape = subject_lib.synthesize_speech(seed=1, seconds=12.0)
    assert samples.dtype == np.int16 and len(samples) == 300 * 640
    opening = shape["jaw"] * (1 - shape["closure"])
    envelope = np.sqrt((samples.reshape(300, 640).astype(float) ** 2).mean(1))
    assert np.corrcoef(opening, envelope)[0, 1] > 0.7
    assert envelope[shape["energy"] > 0.3].min() > 5 * np.median(envelope[shape["energy"] < 0.01])
    bright = np.abs(np.fft.rfft(samples.reshape(300, 640) * np.hanning(640), axis=1))
    spread, rounded = (shape[k] > 0.9 for k in ("spread", "round"))
    # 1.5 to 2.75 kHz: where the second formant of a spread vowel is, not that of a rounded one
    band = slice(60, 110)
    share = bright[:, band].sum(1) / bright.sum(1)
    assert share[spread].mean() > 1.5 * share[rounded].mean()
    other, _ = subject_lib.synthesize_speech(seed=2, seconds=12.0)
    assert not np.array_equal(samples, other)


def test_every_mouth_recurs_in_the_test_split():
    _, shape = subject_lib.synthesize_speech(seed=0, seconds=14.0)
    mouths = np.stack([shape[k] for k in ("jaw", "spread", "round", "closure")], -1)
    train, test = mouths[: int(350 * 10 / 11)], mouths[int(350 * 10 / 11) :]
    nearest = np.abs(test[:, None] - train[None]).max(-1).min(1)
    assert nearest.max() < 0.25


@pytest.mark.parametrize("size", [30, 129])
def test_refuses_sizes_it_cannot_draw(tmp_path, size):
    with pytest.raises(ValueError, match="even number"):
        subject_lib.make_clip(tmp_path, size=size, seconds=0.1)
