"""Training of the lip-sync expert: the loss, the shifts, and that it learns a painted mouth."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fg3dgs_jax.lipsync import __main__, examples, fit, fit_folders, shift_scores
from fg3dgs_jax.lipsync import expert as expert_lib
from tests import fake_avatar

RNG = np.random.default_rng(0)


def test_shift_losses_against_loops():
    similar = RNG.normal(size=(2, 50, 50)) * 2
    found = examples.shift_losses(jnp.asarray(similar))

    def entropy(logits, right):
        return np.log(np.sum(np.exp(logits))) - right

    sound, mouth, hard = [], [], []
    for s in similar:
        for v in range(50):
            others = [w for w in range(50) if abs(w - v) != 1]
            sound.append(entropy(s[v, others], s[v, v]))
            mouth.append(entropy(s[others, v], s[v, v]))
            near = [w for w in range(50) if w == v or 2 <= abs(w - v) <= 6]
            hard.append(entropy(s[v, near], s[v, v]))
    run = []
    for s in similar:
        mean = {o: 3 * np.mean([s[v, v + o] for v in range(15, 29)]) for o in range(-15, 16)}
        run.append(entropy(np.array([m for o, m in mean.items() if abs(o) != 1]), mean[0]))
    for name, values in dict(sound=sound, mouth=mouth, hard=hard, run=run).items():
        np.testing.assert_allclose(found[name], np.mean(values), rtol=1e-4, err_msg=name)


def test_a_known_shift_is_found_and_what_is_outside_is_not_counted():
    heard = RNG.normal(size=(80, 16))
    seen = np.roll(heard, 3, axis=0)  # mouth v shows what is heard in v - 3
    similar = seen @ heard.T
    by_shift = shift_scores.by_shift(similar)
    assert np.isnan(by_shift[0, :15]).all() and np.isnan(by_shift[-1, 16:]).all()
    assert by_shift[20, 15 - 3] == similar[20, 17]
    found = shift_scores.summary(similar)
    assert found["peak"] == -3 and found["aligned"] == 0.0 and found["steady"] == 1.0
    assert found["frames"] == 84
    assert shift_scores.curves(similar).shape == (80 - 46 + 1, 31)
    assert shift_scores.summary(heard @ heard.T)["aligned"] == 1.0
    assert shift_scores.curves(similar[:30, :30]).shape == (1, 31)


def test_disturbances_differ_between_segments_not_within_one():
    stored = np.broadcast_to(RNG.integers(0, 255, (72, 72, 3), np.uint8), (2, 3, 72, 72, 3))
    windows = np.zeros((2, 3, 16, 80), np.float32)
    mouths, heard = examples.disturb(jax.random.key(0), stored, windows)
    again, _ = examples.disturb(jax.random.key(0), stored, windows)
    np.testing.assert_array_equal(mouths, again)
    within = np.abs(mouths[:, 0] - mouths[:, 1]).mean((1, 2, 3))
    between = np.abs(mouths[0] - mouths[1]).mean()
    assert np.isfinite(mouths).all() and (within < 0.05).all() and between > 0.1
    assert heard.shape == windows.shape and 0.2 < heard.std() < 0.6


def test_a_clip_is_split_into_three_parts_and_a_short_one_refused():
    parts = fit.parts(350)
    assert parts == ((0, 289), (289, 318), (318, 350))
    with pytest.raises(ValueError, match=r"50 frames is too short; expected \d+ or more"):
        fit.parts(50)


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    path = tmp_path_factory.mktemp("sync") / "painted"
    path.mkdir()
    return fake_avatar.make_folder(path, seconds=20)


SMALL = """
import sys
from fg3dgs_jax.lipsync import __main__, fit
fit.CHECK_EVERY, fit.SEGMENT, fit.BATCH = 20, 36, 2
sys.exit(__main__.main(sys.argv[1:]))
"""


def test_the_program_learns_a_painted_mouth(painted, tmp_path):
    out = tmp_path / "expert"
    # By itself: sixty steps are worth compiling well, which the tests' settings do not.
    run = subprocess.run(
        [sys.executable, "-c", SMALL, "fit", "--data", painted, "--out", out, "--steps", "60"],
        env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert "runs of 2 s peak within a frame" in run.stdout
    told = json.loads((out / "report.json").read_text())
    held_out = [row["held_out"] for row in told["history"]]
    assert len(held_out) == 3 and np.isfinite(held_out).all()
    (found,) = told["clips"].values()
    assert abs(found["peak"]) <= 1 and found["aligned"] == 1.0 and found["contrast"] > 0.05
    assert told["calibration"][0] > 0
    expert = expert_lib.load(out / "sync_expert.npz")
    clip = fit_folders.sync_clip(painted)
    similar = fit.cosines(expert, clip, 0, 64)
    # What training sees of a stored mouth is what eq. (16) sees of the frame itself.
    boxes = np.tile(expert_lib.mouth_boxes(np.load(painted / "landmarks.npz")["pixels"])[:5], 1)
    frames = np.load(painted / "frames.npy")[None, :5].astype(np.float32) / 255
    direct = expert_lib.embed_mouths(expert, frames, boxes[None])[0, 0]
    stored = fit._see(expert, jnp.asarray(clip.mouths[:5]))[0]
    assert similar.shape == (60, 60) and float(direct @ stored) > 0.97


def test_bad_folders_are_refused_before_the_work(painted, tmp_path, capsys):
    def run(*data):
        return __main__.main(["fit", "--data", *map(str, data), "--out", str(tmp_path / "o")])

    assert run(painted, painted) == 1
    assert "more than one folder is called painted" in capsys.readouterr().err
    assert run(tmp_path / "nothing") == 1
    error = capsys.readouterr().err
    assert "does not exist" in error and error.count("\n") == 1
    short = tmp_path / "short"
    short.mkdir()
    fake_avatar.make_folder(short, seconds=2)
    assert run(short) == 1
    assert "50 frames is too short" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
