"""The lip prior: a fixed window of sound, one file, and the door of all extractors."""

import os
import pathlib

import jax
import numpy as np
import pytest

from fg3dgs_jax.experts.audio import audio_features, lip_prior, whisper
from fg3dgs_jax.media import loudness, video

ROOT = pathlib.Path(__file__).resolve().parents[2]
MATERIAL = pathlib.Path(os.environ.get("FG3DGS_TEST_DATA", ROOT.parent / "shared"))
WIDTH, FEATURES = 64, 4 * 64  # of a small encoder: two rows of two layers a frame


@pytest.fixture(scope="module")
def encoder():
    net = whisper.WhisperEncoder(WIDTH, num_layers=3)
    return net.init(jax.random.key(0), np.zeros((3000, 80), np.float32))["params"]


@pytest.fixture(scope="module")
def prior():
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(FEATURES, 16)).astype(np.float32) / 16
    network = lip_prior.LipNetwork((24, 12))
    params = network.init(jax.random.key(1), np.zeros((1, 5 * 16), np.float32))["params"]
    zeros, ones = np.zeros(FEATURES, np.float32), np.ones(FEATURES, np.float32)
    return lip_prior.LipPrior(zeros, ones, basis, jax.device_get(params), {"seconds": 7.0})


def _speech(seconds, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=round(seconds * 16_000)) * 3000).astype(np.int16)


def test_a_frame_depends_on_a_fixed_window_of_sound(encoder, prior):
    """3 s back and 0.52 s on: what lies farther changes nothing."""
    sound = _speech(6.0)
    whole = lip_prior.features((encoder, prior), sound, 150)[:, 0]
    frame = 100
    other = sound.copy()
    other[: (frame - 2) * 640 - 3 * 16_000 - 10 * 320 - 400] = 0
    other[(frame + 1) * 640 + round(0.52 * 16_000) :] //= 3
    changed = lip_prior.features((encoder, prior), other, 150)[:, 0]
    assert np.abs(changed[frame] - whole[frame]).max() < 1e-4
    assert np.abs(changed - whole).max() > 1e-3


def test_a_longer_file_begins_with_the_same_frames(encoder, prior):
    sound = _speech(6.0)
    first = lip_prior.features((encoder, prior), sound[: 16_000 * 4], 100)
    whole = lip_prior.features((encoder, prior), sound, 150)
    np.testing.assert_allclose(first[:86], whole[:86], atol=1e-4)


def test_frames_after_the_sound_hear_silence(encoder, prior):
    sound = _speech(1.0)
    padded = np.concatenate([sound, np.zeros(16_000, np.int16)])
    both = [lip_prior.features((encoder, prior), s, 50) for s in (sound, padded)]
    np.testing.assert_allclose(*both, atol=1e-5)
    assert both[0].shape == (50, 1, 3) and both[0].dtype == np.float32


def test_a_saved_prior_comes_back(prior, tmp_path):
    path = tmp_path / "lip_prior.npz"
    lip_prior.save(path, prior)
    again = lip_prior.load(path)
    assert again.facts == prior.facts and again.network == prior.network
    heard = np.random.default_rng(1).normal(size=(9, FEATURES)).astype(np.float32)
    np.testing.assert_allclose(
        lip_prior.predict(again, heard), lip_prior.predict(prior, heard), atol=0.02
    )


@pytest.mark.parametrize("fault", ["text", "lacks", "misfit"])
def test_another_file_is_refused_in_one_line(prior, tmp_path, fault):
    path = tmp_path / "lip_prior.npz"
    if fault == "text":
        path.write_text("not an archive")
    elif fault == "lacks":
        np.savez(path, mean=np.zeros(3))
    else:
        lip_prior.save(path, prior._replace(basis=prior.basis[:, :9]))
    with pytest.raises(ValueError, match=r"is no lip prior .* expected what `lipsync fit` writes"):
        lip_prior.load(path)


def test_your_own_prior_comes_before_the_shipped_one(prior, tmp_path, monkeypatch):
    monkeypatch.setenv("FG3DGS_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("fg3dgs_jax.weights.store.cache_folder", lambda: tmp_path / "cache")
    assert lip_prior.require() == lip_prior.SHIPPED
    lip_prior.save(tmp_path / "lip_prior.npz", prior)
    assert lip_prior.require() == tmp_path / "lip_prior.npz"


def test_the_shipped_prior_is_small_and_learnt_from_nobody():
    assert lip_prior.SHIPPED.stat().st_size < 1_000_000
    facts = lip_prior.load(lip_prior.SHIPPED).facts
    assert "no person" in facts["learnt_from"]


def test_lips_open_in_speech_and_rest_in_silence_and_noise():
    """The shipped prior on a sentence of the test data; the words of the claim in the README."""
    try:
        audio_features.require("whisper")
    except ValueError as reason:
        pytest.skip(str(reason))
    radio = MATERIAL / "data" / "audio" / "radio34.wav"
    if not radio.is_file():
        pytest.skip(f"{radio} is not here")
    samples = video.read_audio(radio)
    samples = loudness.apply_gain(samples, loudness.gain_db(samples))
    pause = np.zeros(2 * 16_000, np.int16)
    sound = np.concatenate([pause, samples, pause])
    frames = len(sound) // 640
    opening = audio_features.extract("lips", sound, frames, lip_prior.SHIPPED)[:, 0, 0]
    speech = opening[55 : frames - 55]
    assert opening[-35:].mean() < speech.mean() - 0.8 * speech.std()
    noise = (np.random.default_rng(0).normal(size=64_000) * 3000).astype(np.int16)
    still = audio_features.extract("lips", noise, 100, lip_prior.SHIPPED)[:, 0, 0]
    assert still.std() < 0.4 * speech.std()
