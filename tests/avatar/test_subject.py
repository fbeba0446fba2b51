"""A subject speaks through the same lip prior as its clip."""

import numpy as np
import pytest

from fg3dgs_jax.avatar.subject import open_subject
from fg3dgs_jax.clip import format
from fg3dgs_jax.clip.fingerprint import digest_of
from fg3dgs_jax.clip.open import open_clip
from fg3dgs_jax.experts.audio import audio_features
from tests import fake_avatar


@pytest.mark.parametrize("kept", [True, False])
def test_new_speech_goes_through_the_prior_that_the_clip_keeps(tmp_path, monkeypatch, kept):
    folder = fake_avatar.make_folder(tmp_path, seconds=2)
    format.save_arrays(folder, audio_lips=np.zeros((50, 1, 3), np.float32))
    if kept:
        (folder / "lip_prior.npz").write_bytes(b"")
    used = []

    def extract(name, samples, num_frames, prior):
        used.append((name, prior))
        return np.zeros((num_frames, 1, 3), np.float32)

    monkeypatch.setattr(audio_features, "extract", extract)
    subject = open_subject(fake_avatar.Avatar(folder, extractor="lips"))
    assert subject.speak(np.zeros(12 * 640, np.int16)).num_frames == 12
    assert used == [("lips", folder / "lip_prior.npz" if kept else None)]


def test_features_that_were_made_anew_since_training_are_told(tmp_path, capsys):
    folder = fake_avatar.make_folder(tmp_path, seconds=2)
    avatar = fake_avatar.Avatar(folder)
    features = open_clip(folder).audio_features(avatar.config.data.audio_extractor)
    avatar.config.data.audio_digest = digest_of(features)
    open_subject(avatar)
    assert not capsys.readouterr().err
    features[3, 0, 0] += 1
    format.save_arrays(folder, **{f"audio_{avatar.config.data.audio_extractor}": features})
    open_subject(avatar)
    assert "were made anew since the avatar was trained" in capsys.readouterr().err
