"""The one door to the audio extractors: each behind its name, shapes, and what is refused."""

import hashlib

import jax
import numpy as np
import pytest

from fg3dgs_jax.config.defaults import Data
from fg3dgs_jax.experts.audio import (
    audio_features,
    ave,
    deepspeech,
    wav2vec2,
    wav2vec2_features,
    wav2vec2_weights,
    whisper,
)
from fg3dgs_jax.media import windows
from fg3dgs_jax.weights import store, variables


def _sound(seconds, seed=0):
    rng, time = np.random.default_rng(seed), np.arange(int(seconds * 16_000)) / 16_000
    voice = np.sin(2 * np.pi * (200 * time + 300 * time**2)) + 0.3 * rng.normal(size=len(time))
    return (6000 * voice * np.sin(np.pi * 3 * time) ** 2).astype(np.int16)


def _random(module, *inputs):
    """Random variables of a module, each from the shape that it asks for."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.uniform(0.05, 0.15, x.shape).astype(np.float32), shapes)


def _speech_model(width, letters):
    config = wav2vec2.Config(
        conv_widths=(4,) * 7,
        width=width,
        num_layers=1,
        num_heads=width // 64,
        ffn_width=8,
        position_kernel=2,
        position_groups=16,
        vocab_size=letters,
    )
    rng = np.random.default_rng(0)
    shapes = wav2vec2_weights.expected_shapes(config)
    state = {k: rng.normal(0, 0.1, shape).astype(np.float32) for k, shape in shapes.items()}
    return config, wav2vec2_weights.convert(state, config)


@pytest.fixture
def registry(monkeypatch, tmp_path):
    """install(name, filename, variables): a registered file that the search finds."""
    monkeypatch.setenv("FG3DGS_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(store, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(store, "REGISTRY", {})
    (tmp_path / "weights").mkdir()

    def install(name, tree=None):
        path = tmp_path / "weights" / f"{name}.npz"
        size, digest = 1, "0" * 64
        if tree is not None:
            variables.save(path, tree)
            size, digest = path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()
        row = store.WeightFile(name, path.name, (), size, digest, "MIT", "a test", "nowhere")
        store.REGISTRY[name] = row

    audio_features._model.cache_clear()
    yield install
    audio_features._model.cache_clear()


def test_mel_needs_no_weights(registry):
    samples = _sound(1)
    found = audio_features.extract("mel", samples, 27)
    np.testing.assert_array_equal(found, windows.mel_windows(samples, 27))


def test_letters_per_frame(registry):
    deep = _random(deepspeech.DeepSpeech((8, 8, 8, 8, 29), 4), np.zeros((2, 494), np.float32))
    registry("deepspeech", deep)
    for name, letters in (("wav2vec2_esperanto", 44), ("wav2vec2_base", 32)):
        registry(name, _speech_model(64, letters)[1])
    samples = _sound(1.01)
    found = audio_features.extract("deepspeech", samples, 28)
    np.testing.assert_array_equal(found, deepspeech.features(deep, samples, 28))
    assert found.shape == (28, 16, 29) and found.std() > 0
    for name, letters in (("wav2vec2", 44), ("wav2vec2_base", 32)):
        config, params = _speech_model(64, letters)
        found = audio_features.extract(name, samples, 28)
        rows = wav2vec2_features.encode(params, config, samples, mode="streaming", output="logits")
        np.testing.assert_array_equal(found, wav2vec2_features.logit_windows(rows, 28))
        assert found.shape == (28, 16, letters) and found[5].std() > 0


def test_rows_per_frame(registry):
    registry("hubert_large", _speech_model(1024, 32)[1])
    encoder = _random(ave.Tower(ave.BLOCKS), np.zeros((1, 80, 16, 1), np.float32))
    registry("ave", encoder)
    samples = _sound(0.4)
    found = audio_features.extract("hubert", samples, 12)
    config, params = _speech_model(1024, 0)
    rows = wav2vec2_features.encode(params, config, samples, mode="chunked", output="hidden")
    assert found.shape == (12, 2, 1024) and len(rows) == 19 and found[3].std() > 0
    np.testing.assert_array_equal(found.reshape(24, -1)[:19], rows)
    assert not found.reshape(24, -1)[19:].any()
    found = audio_features.extract("ave", samples, 12)
    np.testing.assert_array_equal(found, ave.features(encoder, samples, 12))
    assert found.shape == (12, 1, 512)


def test_whisper_goes_through_the_same_door(registry, monkeypatch):
    registry("whisper_tiny_en", {"x": np.zeros(1)})
    rows = np.random.default_rng(0).normal(size=(50, 384)).astype(np.float32)
    whispers = audio_features.EXTRACTORS["whisper"]._replace(load=lambda path: "model")
    monkeypatch.setitem(audio_features.EXTRACTORS, "whisper", whispers)
    monkeypatch.setattr(whisper, "encode", lambda model, samples: rows)
    found = audio_features.extract("whisper", _sound(1), 26)
    np.testing.assert_array_equal(found, windows.whisper_windows(rows, 26))


def test_what_cannot_be_extracted_is_one_line(registry):
    registry("ave")
    registry("wav2vec2_base", _speech_model(64, 31)[1])
    (store.search_folders()[0] / "ave.npz").unlink(missing_ok=True)
    for name, samples, parts in (
        ("words", _sound(0.1), ("'words'", "mel", "deepspeech")),
        ("ave", _sound(0.1), ("ave.npz", "licence MIT", "FG3DGS_WEIGHTS")),
        ("hubert", _sound(0.1), ("'hubert_large'",)),
        ("mel", _sound(0), ("no samples",)),
        ("wav2vec2_base", _sound(0.1), ("[3, 16, 31]", "[3, 16, 32]", "another model")),
    ):
        with pytest.raises(ValueError) as caught:
            audio_features.extract(name, samples, 3)
        message = str(caught.value)
        assert "\n" not in message and all(part in message for part in parts), message


def test_windows_of_another_shape_are_refused():
    settings = Data(audio_extractor="mel")
    good, bad = (16, 80), (16, 29)
    audio_features.check_window(settings, good, "here")
    with pytest.raises(audio_features.FeatureMismatch, match=r"here has 'mel'.*29\].*\[16, 80\]"):
        audio_features.check_window(settings, bad, "here")
    settings = Data(audio_extractor="mel", audio_window=(16, 29))
    audio_features.check_window(settings, bad, "here")
    with pytest.raises(audio_features.FeatureMismatch, match=r"trained on \[16, 29\]"):
        audio_features.check_window(settings, good, "here")
    # An extractor of someone else's, in a run that does not tell its shape.
    audio_features.check_window(Data(audio_extractor="words"), bad, "here")


def test_expected_lips_do_not_depend_on_the_level(monkeypatch):
    given = []

    def extract(name, samples, num_frames):
        given.append((name, samples))
        return np.ones((num_frames, 1, 3), np.float32)

    monkeypatch.setattr(audio_features, "extract", extract)
    monkeypatch.setattr(audio_features.store, "find", lambda name: "here")
    rng = np.random.default_rng(0)
    bursts = np.repeat(np.tile([0.0, 1.0], 5), 4000)
    loud = (rng.normal(size=40_000) * 4000 * bursts).clip(-32767, 32767).astype(np.int16)
    for samples in (loud, loud // 4):
        assert audio_features.expected_lips(samples, 62).shape == (62, 3)
    (name, one), (_, other) = given
    assert name == "lips" and abs(one.std() / other.std() - 1) < 0.05
    monkeypatch.setattr(audio_features.store, "find", lambda name: None)
    assert audio_features.expected_lips(loud, 62) is None
