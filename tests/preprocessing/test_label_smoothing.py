"""Labels over time, on a drawn head that moves: borders keep still, lips do not lag."""

import numpy as np
import pytest

from fg3dgs_jax.clip import format
from fg3dgs_jax.clip.format import LABELS
from fg3dgs_jax.preprocessing.label import from_landmarks, smoothing
from fg3dgs_jax.preprocessing.threads import map_ahead
from tests.preprocessing.test_labels import landmarks, person

COUNT = 9


def moving_points(opening=10.0):
    """[9, 478, 2] px: the drawn face going right and down, by 1.7 and 0.6 px a frame."""
    rng = np.random.default_rng(0)
    face = landmarks(opening)
    face[smoothing.RIGID] += rng.normal(0, 20, (len(smoothing.RIGID), 2))
    return face + np.arange(COUNT)[:, None, None] * (1.7, 0.6)


@pytest.fixture(scope="module")
def drawn():
    image, mask = person()
    return from_landmarks.parse(image, landmarks(), mask).labels


def shifted(labels, t):
    return np.roll(labels, (round(0.6 * t), round(1.7 * t)), (0, 1))


def smoothed(labels, points, cuts=()):
    parsed = (from_landmarks.Parsed(one, np.float32(t)) for t, one in enumerate(labels))
    out = list(smoothing.smooth(parsed, points, cuts=cuts))
    assert [one.alpha for one in out] == list(range(len(labels)))  # each frame keeps its own
    return np.stack([one.labels for one in out])


def test_similarity_is_exact():
    points = np.random.default_rng(0).normal(size=(20, 2)) * 50
    turn = 1.1 * np.array([[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]])
    found = smoothing.similarity(points, points @ turn.T + (3, -7))
    np.testing.assert_allclose(found, np.column_stack([turn, (3, -7)]), atol=1e-9)


def test_a_frame_that_differs_is_outvoted_in_the_heads_frame(drawn):
    points = moving_points()
    true = np.stack([shifted(drawn, t) for t in range(COUNT)])
    broken = true.copy()
    hair = broken[4] == LABELS["hair"]  # of which one frame lacks a bite
    broken[4][hair & (np.arange(256)[:, None] < 45)] = 0
    hair_before = smoothing.flicker(broken[3:6], points[3:6], (17,))
    out = smoothed(broken, points)
    head_error = (from_landmarks.head_mask(out) ^ from_landmarks.head_mask(true)).sum((1, 2))
    assert head_error.max() < 0.02 * from_landmarks.head_mask(true[4]).sum()
    assert hair_before > 0.15
    assert smoothing.flicker(out[3:6], points[3:6], (17,)) < 0.05


def test_scenes_are_voted_on_by_themselves(drawn):
    labels = np.stack([shifted(drawn, t) for t in range(COUNT)])
    labels[4:] = labels[4:, ::-1, ::-1]  # another scene
    points = moving_points()
    out = smoothed(labels, points, cuts=[4])
    np.testing.assert_array_equal(out[:4], smoothed(labels[:4], points[:4]))
    np.testing.assert_array_equal(out[4:], smoothed(labels[4:], points[4:]))


def test_a_still_clip_comes_back_as_it_was(drawn):
    out = smoothed([drawn] * 6, np.repeat(moving_points()[:1], 6, 0))
    assert (out != drawn).mean() < 1e-3  # but for specks


def test_mouth_and_eyes_keep_their_own_frames_outlines(drawn):
    image, mask = person()
    openings = [1.5, 12.0, 3.0, 14.0, 2.0]
    labels = [from_landmarks.parse(image, landmarks(o), mask).labels for o in openings]
    out = smoothed(labels, np.repeat(moving_points()[:1], 5, 0))
    for classes in (format.MOUTH_LABELS, format.EYE_LABELS, (12,), (13,)):
        np.testing.assert_array_equal(np.isin(out, classes), np.isin(labels, classes))


def test_teeth_that_come_and_go_are_outvoted(drawn):
    labels = np.stack([drawn] * 5)
    mouth = np.isin(drawn, format.MOUTH_LABELS)
    labels[:, mouth] = LABELS["mouth"]
    rows, columns = np.nonzero(mouth)
    labels[2, rows[: len(rows) // 2], columns[: len(rows) // 2]] = LABELS["teeth"]
    out = smoothed(labels, np.repeat(moving_points()[:1], 5, 0))
    assert not (out == LABELS["teeth"]).any() and (out[2][mouth] == LABELS["mouth"]).all()


def test_specks_take_what_surrounds_them():
    labels = np.full((64, 64), LABELS["hair"], np.uint8)
    labels[10:12, 10:12] = LABELS["left_ear"]
    labels[0:2, 40:43] = LABELS["cloth"]
    labels[30:50, 30:50] = LABELS["skin"]
    out = smoothing.without_specks(labels, range(19), 20)
    assert (out[:25] == LABELS["hair"]).all() and (out[30:50, 30:50] == LABELS["skin"]).all()


def test_map_ahead_keeps_the_order_and_reads_no_further_than_it_must():
    read = []

    def numbers():
        for i in range(50):
            read.append(i)
            yield i

    results = map_ahead(lambda a, b: a * b, numbers(), range(50), workers=2)
    assert next(results) == 0 and len(read) <= 5
    assert list(results) == [i * i for i in range(1, 50)]
    with pytest.raises(ZeroDivisionError):
        list(map_ahead(lambda a: 1 // a, [1, 0, 1]))
