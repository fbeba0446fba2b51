"""The lip prior learns one person's lips, and no frame's features know that frame."""

import jax
import numpy as np
import pytest

from fg3dgs_jax.experts.audio import lip_adapt, lip_prior

D, T, CUT = 32, 1200, 1000


@pytest.fixture(scope="module")
def prior():
    network = lip_prior.LipNetwork((24, 12))
    params = network.init(jax.random.key(1), np.zeros((1, 5 * 16), np.float32))["params"]
    basis = np.random.default_rng(0).normal(size=(D, 16)).astype(np.float32) / 4
    zeros, ones = np.zeros(D, np.float32), np.ones(D, np.float32)
    return lip_prior.LipPrior(zeros, ones, basis, jax.device_get(params), {"seed": 0})


@pytest.fixture(scope="module")
def heard():
    steps = np.random.default_rng(2).normal(size=(T, D))
    return np.stack([np.convolve(s, np.ones(4) / 2, "same") for s in steps.T], 1).astype(np.float32)


def correlations(a, b):
    return np.array([np.corrcoef(x, y)[0, 1] for x, y in zip(a.T, b.T, strict=True)])


def test_a_person_who_does_otherwise_is_learnt_from_the_frames_given(prior, heard):
    """This person widens where others open, and lips come two frames late."""
    common = lip_prior.predict(prior, heard)
    own = np.roll(0.05 * common[:, [1, 0, 2]], 2, axis=0) + 0.3
    adapted, features = lip_adapt.adapt(prior, heard, own, np.arange(CUT))
    in_step = np.roll(own, -2, axis=0)
    test = slice(CUT, T - 2)
    before = correlations(common[test], in_step[test])
    after = correlations(features[test], in_step[test])
    assert (after > 0.65).all() and (after[:2] > before[:2] + 0.3).all()
    np.testing.assert_allclose(lip_prior.predict(adapted, heard)[test], features[test], atol=1e-4)
    assert adapted.facts == {"seed": 0, "adapted_to_frames": CUT}


def test_lips_of_other_frames_are_not_looked_at(prior, heard):
    """Of frames without a face, and of the test end, even where lips come two frames late."""
    own = np.roll(0.05 * lip_prior.predict(prior, heard)[:, [1, 0, 2]], 2, axis=0)
    other = own.copy()
    learnt = np.setdiff1d(np.arange(CUT), np.arange(300, 330))
    other[np.setdiff1d(np.arange(T), learnt)] = 7.0
    one, two = (lip_adapt.adapt(prior, heard, x, learnt)[1] for x in (own, other))
    np.testing.assert_array_equal(one, two)


def test_lips_are_shut_in_sounds_that_no_lips_make(prior, heard):
    """The clip has none of them, so what is learnt from it would lead anywhere there."""
    rng = np.random.default_rng(5)
    still = [(6 + rng.normal(size=(50, D))).astype(np.float32) for _ in range(8)]
    own = np.roll(lip_prior.predict(prior, heard)[:, [1, 0, 2]], 2, axis=0)
    learnt = np.arange(CUT)
    shut = np.percentile((own[learnt, 0] - own[learnt, 0].mean()) / own[learnt, 0].std(), 5)
    far = []
    for known in ((), still):
        adapted, _ = lip_adapt.adapt(prior, heard, own, learnt, known)
        opening = lip_prior.predict(adapted, still[0])[:, 0]
        far.append(np.abs(opening.mean() - shut))
    assert far[1] < 1.0 < 2.0 < far[0], far


def test_features_of_a_frame_do_not_know_its_lips(prior, heard, monkeypatch):
    """Each fit adds its number: so a frame's features show which fit made them."""
    fits = []

    def numbered(units, missing):
        fits.append(units)
        return np.zeros((units.shape[1], 3)), np.full(3, len(fits) - 1.0)

    monkeypatch.setattr(lip_adapt, "_ridge", numbered)
    own = np.random.default_rng(3).normal(size=(T, 3)).astype(np.float32)
    learnt = np.arange(CUT)
    _, features = lip_adapt.adapt(prior, heard, own, learnt)
    numbers = (features - lip_prior.predict(prior, heard)).mean(1).round().astype(int)
    np.testing.assert_array_equal(numbers[CUT:], 0)
    everything = fits[0]
    for frame in range(0, CUT, 37):
        near = everything[max(0, frame - lip_adapt.MARGIN) : frame + lip_adapt.MARGIN + 1]
        known = fits[numbers[frame]]
        assert not (known[:, None] == near[None]).all(-1).any(), frame


def test_too_few_frames_change_nothing(prior, heard):
    own = np.ones((T, 3), np.float32)
    adapted, features = lip_adapt.adapt(prior, heard, own, np.arange(lip_adapt.MIN_FRAMES - 1))
    assert adapted is prior
    np.testing.assert_array_equal(features, lip_prior.predict(prior, heard))
