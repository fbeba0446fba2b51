"""What a user may change about new speech changes that and nothing else."""

import numpy as np
import pytest

from fg3dgs_jax.avatar import controls as lib
from fg3dgs_jax.avatar.controls import Controls
from fg3dgs_jax.avatar.subject import open_subject
from tests import fake_avatar

NAMES = ("gaze_x", "AU45")
RNG = np.random.default_rng(0)
LEARNT = RNG.uniform(1.0, 3.0, (400, 2)).astype(np.float32)
ROWS = LEARNT[:60]


def test_the_defaults_change_nothing():
    np.testing.assert_array_equal(lib.apply(Controls(), ROWS, LEARNT, NAMES), ROWS)
    assert not Controls().eases and Controls(mouth_gain=np.array([1.0, 1.2])).eases


def test_a_channel_is_a_share_of_what_the_clip_showed():
    out = lib.apply(Controls(expression={"gaze_x": 1.0}), ROWS, LEARNT, NAMES)
    np.testing.assert_array_equal(out[:, 1], ROWS[:, 1])
    assert out[0, 0] == pytest.approx(np.percentile(LEARNT[:, 0], 99), rel=1e-6)
    curve = np.array([0.0, 0.5], np.float32)
    out = lib.apply(Controls(expression={"gaze_x": curve}), ROWS, LEARNT, NAMES)
    assert out[0, 0] == pytest.approx(np.percentile(LEARNT[:, 0], 2), rel=1e-6)
    assert np.ptp(out[1:, 0]) == 0 and out[1, 0] > out[0, 0]  # it stays at its last value
    shut = lib.apply(Controls(blink=1.0), ROWS, LEARNT, NAMES)
    none = lib.apply(Controls(blink="none"), ROWS, LEARNT, NAMES)
    assert np.all(shut[:, 1] > none[:, 1]) and np.array_equal(shut[:, 0], ROWS[:, 0])


def test_natural_blinks_come_every_few_seconds_and_last_less_than_a_third_of_one():
    lids = lib.natural_blinks(25 * 600, seed=3)
    shut = lids > 0.5
    begins = np.flatnonzero(shut[1:] & ~shut[:-1])
    assert 110 < len(begins) < 200 and np.diff(begins).min() >= 25  # in ten minutes
    ends = np.flatnonzero(~shut[1:] & shut[:-1])
    assert (ends - begins[: len(ends)]).max() <= 5 and lids.max() > 0.95 and lids.min() >= 0.05
    np.testing.assert_array_equal(lids, lib.natural_blinks(25 * 600, seed=3))
    assert not np.array_equal(lids, lib.natural_blinks(25 * 600, seed=4))
    assert len(lib.natural_blinks(1)) == 1


def test_a_still_pose_is_the_most_usual_one():
    pool = np.arange(10, 20)
    positions = np.zeros((30, 3))
    positions[10:20, 0] = [5, 4, 3, 2, 1, 0, -1, -2, -3, -9]
    poses = lib.poses(Controls(pose="still"), pool, positions, 40)
    assert len(poses) == 40 and set(poses) <= {15, 14}
    played = lib.poses(Controls(), pool, positions, 40)
    assert played[:3].tolist() == [10, 11, 12] and len(set(played)) == 10


def test_curves_are_numbers_or_files(tmp_path):
    path = tmp_path / "a.csv"
    assert lib.read_curve("0.5", "x") == 0.5
    path.write_text("0.1\n0.2\n")
    np.testing.assert_allclose(lib.read_curve(path, "x"), [0.1, 0.2])
    path.write_text("x, y\n0.1,0.3\n0.2,0.4\n")
    np.testing.assert_allclose(lib.read_curve(str(path), "y"), [0.3, 0.4])
    assert set(lib.read_columns(path, ("y", "z"))) == {"y"}
    for text, words in (
        ("x,y\n1,2\n", "has no column 'z'; it has"),
        ("1\n2,3\n", "has a row that is not 1 numbers"),
        ("x\nhigh\n", "has a row that is not 1 numbers"),
        ("", "is empty"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=words):
            lib.read_curve(path, "z")
    with pytest.raises(ValueError, match="expected a number, or a CSV file"):
        lib.read_curve("much", "mouth_gain")
    with pytest.raises(ValueError, match="does not exist"):
        lib.read_columns(tmp_path / "none.csv", ("y",))


@pytest.mark.parametrize(
    ("controls", "words"),
    [
        (Controls(pose="lying"), "pose is 'lying'; expected one of clip, still"),
        (Controls(blink="often"), "blink is 'often'"),
        (Controls(blink=1.5), "blink is 1.5; expected 0 to 1"),
        (Controls(expression={"AU12": 0.5}), "'AU12' is unknown to the avatar; it has"),
        (Controls(expression={"gaze_x": np.array([0.5, -1.0])}), "gaze_x is -1.0"),
        (Controls(expression={"gaze_x": np.nan}), "gaze_x is nan"),
        (Controls(mouth_gain=3.0), "mouth_gain is 3.0; expected 0 to 2"),
        (Controls(mouth_gain=np.zeros(0)), "mouth_gain is empty"),
    ],
)
def test_what_the_avatar_cannot_do_is_refused(controls, words):
    with pytest.raises(ValueError, match=words):
        lib.check(controls, NAMES)


def test_an_avatar_without_blinks_is_not_asked_to():
    with pytest.raises(ValueError, match="no channel AU45"):
        lib.check(Controls(blink="natural"), ("gaze_x",))
    lib.check(Controls(), ("gaze_x",))


def test_the_mouth_goes_as_far_as_it_is_told(tmp_path):
    folder = fake_avatar.make_folder(tmp_path, seconds=2)
    samples = fake_avatar.speech(2, seed=5)

    def dark(gain):
        avatar = fake_avatar.Avatar(folder)
        speech = open_subject(avatar).speak(samples, controls=Controls(mouth_gain=gain))
        return np.mean([np.mean(frame[..., 0] < 100) for frame in speech.frames])

    assert dark(0.0) == 0.0 < dark(0.5) < dark(1.0) < dark(1.5)
    fading = np.concatenate([np.ones(25), np.zeros(25)])
    assert 0.2 * dark(1.0) < dark(fading) < 0.8 * dark(1.0)
