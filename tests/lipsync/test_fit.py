"""Training of the lip-sync expert: the loss, the shifts, and that it learns a painted mouth."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fg3dgs_jax.lipsync import __main__, examples, fit, fit_expert, shift_scores, sync_clips
from fg3dgs_jax.lipsync import expert as expert_lib
from fg3dgs_jax.lipsync import fit_prior as fit_prior_lib
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
    within = np.abs(mouths[:, 0] - mouths[:, 1]).mean((1, 2))
    between = np.abs(mouths[0] - mouths[1]).mean()
    assert np.isfinite(mouths).all() and (within < 0.05).all() and between > 0.1
    assert heard.shape == windows.shape and 0.2 < heard.std() < 0.8


def test_a_disturbance_of_strength_0_changes_nothing():
    y, x = np.mgrid[:72, :72]
    smooth = np.stack([x, y, x + y], -1).astype(np.uint8)  # nothing that resampling could blur
    stored = np.broadcast_to(smooth, (2, 5, 72, 72, 3))
    windows = RNG.normal(size=(2, 1, 16, 80)).astype(np.float32)
    mouths, heard = examples.disturb(jax.random.key(0), stored, windows, 0.0)
    np.testing.assert_allclose(mouths, examples.plain_mouths(stored), atol=2e-3)
    np.testing.assert_allclose(heard, windows, atol=1e-5)


def test_a_turned_rectangle_comes_back_turned():
    picture = jnp.asarray(RNG.uniform(size=(1, 1, 48, 48)), jnp.float32)
    middle, half = jnp.full((1, 2), 24.0), jnp.full((1, 2), 24.0)
    straight = examples._turned(picture, middle, half, jnp.zeros(1))
    np.testing.assert_allclose(straight, picture, atol=2e-3)
    quarter = examples._turned(picture, middle, half, jnp.full(1, np.pi / 2))
    np.testing.assert_allclose(quarter[0, 0], np.rot90(picture[0, 0]), atol=2e-3)


def test_a_clip_is_split_into_three_parts_and_a_short_one_refused():
    parts = fit.parts(350)
    assert parts == ((0, 289), (289, 318), (318, 350))
    with pytest.raises(ValueError, match=r"50 frames is too short; expected 79 or more"):
        fit.parts(50)
    assert fit.parts(79).train[1] >= fit.SEGMENT


def test_of_many_speakers_some_are_held_out_with_all_their_clips():
    speakers = [f"s{k // 2}" for k in range(32)]
    lengths = [30] * 16 + [120] * 16
    plan = fit.plan(lengths, speakers, seed=0)
    held_out = {who for who, part in zip(speakers, plan, strict=True) if part.train == (0, 0)}
    assert len(held_out) == 2 and held_out != {
        who
        for who, part in zip(speakers, fit.plan(lengths, speakers, seed=1), strict=True)
        if part.train == (0, 0)
    }
    for who, length, part in zip(speakers, lengths, plan, strict=True):
        whole = part.held_out if who in held_out else part.train
        assert whole == (0, length) and (part.test == (0, length)) == (who in held_out)


def test_of_few_speakers_ends_are_held_out_and_short_clips_are_learnt_whole():
    plan = fit.plan([350, 50], ["a", "b"], seed=0)
    assert plan == [fit.parts(350), ((0, 50), (50, 50), (50, 50))]
    # An end of 32 frames cannot be judged: it stops the training where there is no longer one.
    whole = ((0, 350), (350, 350), (350, 350))
    assert fit.plan([350, 500], ["a", "b"], seed=0) == [whole, fit.parts(500)]
    with pytest.raises(ValueError, match="50 frames is too short"):
        fit.plan([50, 40], ["a", "b"], seed=0)
    with pytest.raises(ValueError, match=r"has 20 frames; expected 28 or more"):
        fit.plan([350, 20], ["a", "b"], seed=0)


def random_clip(name, frames):
    mouths = RNG.integers(0, 255, (frames, 72, 72, 3), np.uint8)
    return examples.SyncClip(name, mouths, RNG.normal(size=(frames, 16, 80)).astype(np.float32))


def test_short_clips_have_segments_of_their_own():
    long, short = random_clip("long", 70), random_clip("short", 30)
    pools = fit._pools([(long, 70), (short, 30)])
    assert [pool.segment for pool in pools] == [64, 64, 28]
    for pool in pools:
        stored, windows = fit._segments(np.random.default_rng(0), pool)
        assert stored.shape == (pool.batch, pool.segment, 72, 72, 3)
        assert windows.shape == (pool.batch, pool.segment - 4, 16, 80)
    assert [pool.segment for pool in fit._pools([(short, 30)])] == [28]


def test_cosines_in_chunks_are_those_of_the_whole():
    clip = random_clip("c", 131)
    params = expert_lib.init(jax.random.key(0), np.zeros(80), np.ones(80))
    similar = fit.cosines(params, clip, 3, 131)
    assert similar.shape == (124, 124)
    # Windows on both sides of a chunk's border, from the frames themselves.
    mouths = examples.plain_mouths(clip.mouths[60:70])[None]
    lips, sound = examples.embed(params, mouths, clip.sound[None, 62:68])
    np.testing.assert_allclose(similar[57:63, 57:63], lips[0] @ sound[0].T, atol=1e-5)


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
        [sys.executable, "-c", SMALL, "fit", "--only", "expert", "--data", painted]
        + ["--out", out, "--steps", "60"],
        env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert "runs of 2 s peak within a frame" in run.stdout
    told = json.loads((out / "sync_expert.json").read_text())
    held_out = [row["held_out"] for row in told["history"]]
    assert len(held_out) == 3 and np.isfinite(held_out).all()
    (found,) = told["clips"].values()
    assert abs(found["peak"]) <= 1 and found["aligned"] == 1.0 and found["contrast"] > 0.05
    assert told["calibration"][0] > 0
    expert = expert_lib.load(out / "sync_expert.npz")
    clip = sync_clips.sync_clip(sync_clips.read(painted))
    similar = fit.cosines(expert, clip, 0, 64)
    # What training sees of a stored mouth is what eq. (16) sees of the frame itself.
    boxes = np.tile(expert_lib.mouth_boxes(np.load(painted / "landmarks.npz")["pixels"])[:5], 1)
    frames = np.load(painted / "frames.npy")[None, :5].astype(np.float32) / 255
    direct = expert_lib.embed_mouths(expert, frames, boxes[None])[0, 0]
    stored = fit._embed(expert, clip.mouths[:5], clip.sound[2:3])[0][0]
    assert similar.shape == (60, 60) and float(direct @ stored) > 0.97


def test_bad_folders_are_refused_before_the_work(painted, tmp_path, capsys):
    def run(*data):
        flags = ["--only", "expert", "--out", str(tmp_path / "o")]
        return __main__.main(["fit", "--data", *map(str, data), *flags])

    assert run(painted, painted) == 1
    assert "more than one clip is called painted" in capsys.readouterr().err
    assert run(tmp_path / "nothing") == 1
    (error,) = (r for r in capsys.readouterr().err.splitlines() if r.startswith("error: "))
    assert "does not exist" in error
    short = tmp_path / "short"
    short.mkdir()
    fake_avatar.make_folder(short, seconds=2)
    assert run(short) == 1
    assert "50 frames is too short" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_what_the_prior_found_moves_the_sound_and_leaves_clips_out(painted, tmp_path, monkeypatch):
    clips = {"painted": {"lag": -3}, "dubbed": {"lag": 0}}
    prior = {"clips": clips, "left_out": ["dubbed"]}
    (tmp_path / "lip_prior.json").write_text(json.dumps(prior))
    lags = fit_expert.read_lags(tmp_path)
    assert lags.late == {"painted": 0.12, "dubbed": 0.0} and lags.left_out == ["dubbed"]
    moved, _ = fit_expert.read_clips([painted], lags, tmp_path)
    still, unread = fit_expert.read_clips([painted, tmp_path], fit_expert.Lags({}, ()), tmp_path)
    moved, still = moved[str(painted)], still[str(painted)]
    assert list(unread) == [str(tmp_path)]
    # Not the same numbers: the mel window of a frame begins at a whole column, 5 frames are 16.
    right = np.abs(moved.sound[:-3] - still.sound[3:]).mean()
    assert right < 0.25 * np.abs(moved.sound[:-3] - still.sound[:-3]).mean()
    learnt = []

    def fit_nothing(clips, ranges, steps, seed):
        learnt.extend(clip.name for clip in clips)
        raise ValueError("enough")

    monkeypatch.setattr(fit_expert, "_fit_with_bar", fit_nothing)
    sources = fit_expert.Sources([painted, tmp_path / "dubbed"])
    with pytest.raises(ValueError, match="enough"):
        fit_expert.fit_expert(sources, tmp_path)
    assert learnt == ["painted"]


def test_the_program_fits_both_or_one(tmp_path, monkeypatch, capsys):
    calls = []
    good = {"lag": -2, "opening": 0.71, "width": None, "protrusion": 0.5, "f1": 0.4}
    clips = {"good": good, "dubbed": good | {"opening": 0.1}}
    prior = {"clips": clips, "mean": {"opening": 0.71}, "left_out": ["dubbed"]}

    def fit_prior(*args):
        calls.append(("prior", *args))
        return prior

    def fit_one_expert(*args):
        calls.append(("expert", *args))
        return {"clips": {}, "best_step": 7}

    monkeypatch.setattr(fit_prior_lib, "fit_prior", fit_prior)
    monkeypatch.setattr(fit_expert, "fit_expert", fit_one_expert)
    paths = ["--data", "a.mp4", "b.mp4", "--out", str(tmp_path), "--speakers", "who.tsv"]
    data, table = [pathlib.Path("a.mp4"), pathlib.Path("b.mp4")], pathlib.Path("who.tsv")
    assert __main__.main(["fit", *paths, "--seed", "3"]) == 0
    sources = fit_expert.Sources(data, [], table)
    assert calls == [
        ("prior", data, tmp_path, table, fit_prior_lib.STEPS, 3),
        ("expert", sources, tmp_path, fit_expert.STEPS, 3),
    ]
    text = capsys.readouterr().out
    rows = [line.split() for line in text.splitlines()]
    assert rows[1] == ["good", "-2", "0.71", "-", "0.50", "0.40"]
    assert rows[2][:3] == ["dubbed", "-2", "0.10"] and "left out" in text.splitlines()[2]
    assert rows[3] == ["mean", "0.71", "-", "-", "-"] and "sync_expert.npz (step 7)" in text
    assert "nothing was judged" in text and "--unseen" in text
    for only in ("prior", "expert"):
        calls.clear()
        assert __main__.main(["fit", *paths, "--only", only, "--steps", "5"]) == 0
        ((name, *args),) = calls
        assert name == only and args[-2:] == [5, 0]
