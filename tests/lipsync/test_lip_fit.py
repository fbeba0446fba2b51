"""Fitting a lip prior: lags, folds, clips that do not fit, sounds that no lips make."""

import jax
import numpy as np
import pytest

from fg3dgs_jax.clip import lips
from fg3dgs_jax.experts.audio import lip_prior, quiet, whisper
from fg3dgs_jax.lipsync import lip_fit
from fg3dgs_jax.lipsync.lip_clips import LipClip, speakers_of

WIDTH, FEATURES = 64, 4 * 64
FRAMES = 300


@pytest.fixture(scope="module")
def encoder():
    net = whisper.WhisperEncoder(WIDTH, num_layers=3)
    return net.init(jax.random.key(0), np.zeros((3000, 80), np.float32))["params"]


def _smooth(values, width):
    kernel = np.hanning(width + 2)[1:-1]
    return np.stack([np.convolve(c, kernel / kernel.sum(), "same") for c in values.T], 1)


MIXTURE = np.random.default_rng(99).normal(size=(6, FEATURES))


def _clip(name, speaker, lag=0, late=None, fits=True, seed=0):
    """Lips that do what is heard, `lag` frames later, in this speaker's own scale."""
    rng = np.random.default_rng(seed)
    hidden = _smooth(rng.normal(size=(FRAMES, 6)), 5) * 3
    heard = hidden @ MIXTURE + 0.3 * rng.normal(size=(FRAMES, FEATURES))
    move = np.roll(hidden, lag, 0) if fits else _smooth(rng.normal(size=(FRAMES, 6)), 5) * 3
    points = np.zeros((FRAMES, 478, 3), np.float32)
    points[:, 14, 1] = 0.1 * (1 + seed % 3) + 0.03 * move[:, 0]  # opening
    points[:, 291, 0] = 0.6 + 0.02 * move[:, 1]  # width
    points[:, (0, 17), 2] = 0.05 * move[:, 2:3]  # protrusion
    samples = (rng.normal(size=FRAMES * 640) * 1000).astype(np.int16)
    return LipClip(name, speaker, heard.astype(np.float32), points, late, samples)


LAGS = {"a": 0, "b": 3, "c": -4, "d": 1, "e": 0, "f": -1}


@pytest.fixture(scope="module")
def clips():
    out = [_clip(n, f"s_{n}", lag, seed=k) for k, (n, lag) in enumerate(LAGS.items())]
    return [c._replace(late=0.04 * -LAGS[c.name]) for c in out]


@pytest.fixture(scope="module")
def start(clips):
    """A prior that has learnt nothing yet."""
    prior = lip_fit.reduce(np.concatenate([c.heard for c in clips]))
    rows = lip_prior.in_context(prior, clips[0].heard)
    params = lip_prior.LipNetwork().init(jax.random.key(0), rows)["params"]
    return prior._replace(params=params)


@pytest.fixture(scope="module")
def fitted(clips, encoder, start):
    odd = _clip("odd", "s_odd", fits=False, seed=9)
    return lip_fit.fit([*clips, odd], encoder, start, steps=300)


def test_lags_are_found_against_clips_in_step(fitted):
    """The gauge is that of the clips whose own spectrum tells how late they are."""
    assert {n: fitted.judged[n].lag for n in LAGS} == LAGS


def test_unknown_speakers_are_predicted(fitted):
    for name in LAGS:
        assert fitted.judged[name].correlations["opening"] > 0.8


def test_a_clip_whose_lips_do_not_fit_its_sound_is_named_and_left_out(fitted):
    assert fitted.left_out == ["odd"]
    assert fitted.prior.facts["clips"] == len(LAGS)


def test_the_prior_gives_the_three_curves_in_step(fitted, clips):
    clip = clips[1]
    predicted = lip_prior.predict(fitted.prior, clip.heard)
    truth = np.stack(lips.lip_curves(lip_fit.shift(clip.points, LAGS["b"])), 1)
    for k in range(2):
        assert np.corrcoef(predicted[5:-5, k], truth[5:-5, k])[0, 1] > 0.8


def test_no_speaker_is_on_both_sides(clips):
    twice = [*clips, clips[0]._replace(name="a2")]
    folds = lip_fit._folds(twice, np.random.default_rng(0))
    seen = []

    def learn(rows):
        seen.append(len(rows.heard) // FRAMES)
        return lambda heard: np.zeros((len(heard), 3), np.float32)

    rows = {c.name: c.heard for c in twice}
    targets = {c.name: lip_fit.targets_of(c) for c in twice}
    lip_fit._cross_predict(twice, rows, targets, folds, dict.fromkeys(rows, 0), learn)
    both = sum(folds[c.speaker] == folds["s_a"] for c in twice)
    assert both >= 2 and len(twice) - both in seen


def test_one_speaker_is_refused(clips, encoder, start):
    with pytest.raises(ValueError, match=r"all clips are of \['me'\]; expected two speakers"):
        lip_fit.fit([c._replace(speaker="me") for c in clips], encoder, start, steps=1)


def test_targets_do_not_know_a_persons_size():
    big = _clip("a", "s", seed=3)
    small = big._replace(points=big.points * 0.5)
    np.testing.assert_allclose(lip_fit.targets_of(big), lip_fit.targets_of(small), atol=1e-4)


def test_quiet_sounds_are_as_loud_as_speech_but_for_silence():
    levels = [np.sqrt(np.mean((s / 32768.0) ** 2)) for s in quiet.sounds(_rng(), 12)]
    assert all(len(s) == 32_000 and s.dtype == np.int16 for s in quiet.sounds(_rng(), 6))
    silent = [levels[k] for k in (0, 6)]
    others = [level for k, level in enumerate(levels) if k not in (0, 6)]
    assert max(silent) < 0.01 < min(others)


def _rng():
    return np.random.default_rng(5)


def test_speakers_come_from_a_table(tmp_path):
    table = tmp_path / "index.tsv"
    table.write_text("file\tspeaker\nx.mp4\tanna\ny.mp4\tanna\n")
    paths = [tmp_path / "x.mp4", tmp_path / "y.mp4", tmp_path / "z.mp4"]
    assert list(speakers_of(paths, table).values()) == ["anna", "anna", "z"]
    assert list(speakers_of(paths, None).values()) == ["x", "y", "z"]
    table.write_text("name,who\n")
    with pytest.raises(ValueError, match="expected `file` and `speaker`, separated by tabs"):
        speakers_of(paths, table)
