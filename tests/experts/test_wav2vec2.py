"""wav2vec 2.0 and HuBERT against transformers; segments, rows and windows against slow loops."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest

from fg3dgs_jax.experts.audio import (
    wav2vec2,
    wav2vec2_checkpoint,
    wav2vec2_features,
    wav2vec2_weights,
)
from fg3dgs_jax.weights import variables

_SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": (8,) * 7,
    "conv_kernel": (10, 3, 3, 3, 3, 2, 2),
    "conv_stride": (5, 2, 2, 2, 2, 2, 2),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": 12,
}
_VARIANTS = {
    "base": {"feat_extract_norm": "group", "conv_bias": False, "do_stable_layer_norm": False},
    "large": {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True},
}


@functools.cache
def _oracle(family, variant, head):
    """transformers' model with every parameter random, and its config.json."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    name = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert"}[family]
    config = getattr(transformers, f"{name}Config")(**_SIZES, **_VARIANTS[variant])
    model = getattr(transformers, name + ("ForCTC" if head else "Model"))(config).eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    assert not list(model.buffers())
    return model, config.to_dict()


def _weights(tmp_path, model):
    """What a user has: the arrays of model.safetensors."""
    load_file = pytest.importorskip("safetensors.numpy").load_file
    model.save_pretrained(tmp_path)
    return load_file(tmp_path / "model.safetensors")


def _theirs(model, samples, **options):
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        return model(torch.tensor(samples[None]), **options)


def _sound(num_samples, seed=0):
    """Gliding harmonics and noise around an offset, loud four times a second; int16 at 16 kHz."""
    rng, time = np.random.default_rng(seed), np.arange(num_samples) / 16_000
    phase = 2 * np.pi * np.cumsum(130 + 30 * np.sin(3 * time)) / 16_000
    voice = sum(np.sin(k * phase) / k for k in range(1, 9)) + 0.2 * rng.normal(size=num_samples)
    return (300 + 4000 * voice * np.sin(np.pi * 4 * time + 0.3) ** 2).astype(np.int16)


def _random_state(config, seed=0):
    rng = np.random.default_rng(seed)
    return {
        key: rng.normal(0.0, 0.3, shape).astype(np.float32)
        for key, shape in wav2vec2_weights.expected_shapes(config).items()
    }


def _close(found, expected, relative):
    """Within `relative` of the largest value expected."""
    assert found.shape == expected.shape and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=relative * np.abs(expected).max())


TINY = wav2vec2.Config(
    conv_widths=(4,) * 7,
    width=8,
    num_layers=1,
    num_heads=2,
    ffn_width=8,
    position_kernel=4,
    position_groups=2,
    vocab_size=5,
)


@functools.cache
def _compiled(config):
    return jax.jit(wav2vec2.Wav2Vec2(config).apply)


@functools.cache
def _tiny_params():
    return wav2vec2_weights.convert(_random_state(TINY), TINY)


@pytest.mark.parametrize("head", [False, True], ids=["encoder", "ctc"])
@pytest.mark.parametrize("variant", ["base", "large"])
@pytest.mark.parametrize("family", ["wav2vec2", "hubert"])
def test_network_equals_transformers(tmp_path, family, variant, head):
    model, entries = _oracle(family, variant, head)
    config = wav2vec2_weights.config_from_json(entries, ctc=head)
    assert config.pre_norm == (variant == "large") and (config.hop, config.field) == (320, 400)
    params = wav2vec2_weights.convert(_weights(tmp_path, model), config)
    samples = wav2vec2_features.standardise(_sound(12_345))
    states, logits = _compiled(config)({"params": params}, samples)
    bare = getattr(model, family) if head else model
    expected = _theirs(bare, samples, output_hidden_states=True)
    assert len(states) == len(expected.hidden_states) == 4 and len(states[0]) == 38
    wanted = [*expected.hidden_states[:-1], expected.last_hidden_state]
    for ours, theirs in zip(states, wanted, strict=True):
        _close(np.asarray(ours), theirs[0].numpy(), 1e-5)
    if head:
        _close(np.asarray(logits), _theirs(model, samples).logits[0].numpy(), 1e-5)
    else:
        assert logits is None


@pytest.mark.parametrize("variant", ["base", "large"])
def test_every_parameter_has_its_place(variant):
    """Converted params are those of the module: names and shapes, none left over."""
    config = wav2vec2_weights.config_from_json(
        {"model_type": "hubert"} | _SIZES | _VARIANTS[variant], True
    )
    params = wav2vec2_weights.convert(_random_state(config), config)
    module = wav2vec2.Wav2Vec2(config)
    wanted = jax.eval_shape(module.init, jax.random.key(0), np.zeros(720, np.float32))["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, wanted)


BASE = wav2vec2.Config()  # wav2vec2-base, hubert-base
LARGE = wav2vec2.Config(  # wav2vec2-large-xlsr-53, hubert-large
    conv_bias=True,
    conv_norm="layer",
    width=1024,
    num_layers=24,
    num_heads=16,
    ffn_width=4096,
    pre_norm=True,
)


@pytest.mark.parametrize("preset", [BASE, LARGE], ids=["base", "large"])
def test_presets_have_the_published_sizes(preset):
    large = preset is LARGE
    vocab = {32: 94_396_320} if not large else {32: 315_471_520, 44: 315_483_820}
    for letters, parameters in vocab.items():
        shapes = wav2vec2_weights.expected_shapes(dataclasses.replace(preset, vocab_size=letters))
        shapes["masked_spec_embed"] = (preset.width,)
        assert len(shapes) == (424 if large else 213)
        assert sum(int(np.prod(shape)) for shape in shapes.values()) == parameters


def test_standardised_sound_equals_transformers():
    extractor = pytest.importorskip("transformers").Wav2Vec2FeatureExtractor()
    sound = _sound(5000)
    expected = extractor(sound / np.float32(32768), sampling_rate=16_000, return_tensors="np")
    found = wav2vec2_features.standardise(sound)
    _close(found, expected.input_values[0], 1e-6)
    np.testing.assert_array_equal(wav2vec2_features.standardise(sound / np.float32(32768)), found)
    assert not wav2vec2_features.standardise(np.zeros(9, np.int16)).any()


def test_spellings_and_prefixes_mean_the_same():
    state = _random_state(TINY)
    key = "encoder.pos_conv_embed.conv.parametrizations.weight.original"
    old = dict(state)
    old["encoder.pos_conv_embed.conv.weight_g"] = old.pop(f"{key}0")
    old["encoder.pos_conv_embed.conv.weight_v"] = old.pop(f"{key}1")
    for prefix in ("hubert.", "wav2vec2."):
        named = {k if k.startswith("lm_head") else prefix + k: v for k, v in old.items()}
        named[f"{prefix}masked_spec_embed"] = np.zeros(8, np.float32)
        found = wav2vec2_weights.convert(named, TINY)
        jax.tree.map(np.testing.assert_array_equal, found, _tiny_params())
    with pytest.raises(ValueError, match="original0' twice"):
        wav2vec2_weights.convert(
            state | {"encoder.pos_conv_embed.conv.weight_g": state[f"{key}0"]}, TINY
        )


def test_keys_and_shapes_are_checked():
    state = _random_state(TINY)
    for key in state:
        with pytest.raises(ValueError, match=f"lack '{key}'"):
            wav2vec2_weights.convert({k: v for k, v in state.items() if k != key}, TINY)
    with pytest.raises(ValueError, match=r"unknown 'encoder.layers.1.layer_norm.weight'"):
        wav2vec2_weights.convert(state | {"encoder.layers.1.layer_norm.weight": np.zeros(8)}, TINY)
    with pytest.raises(ValueError, match=r"\(6, 8\) under 'lm_head.weight'; expected \(5, 8\)"):
        wav2vec2_weights.convert(state | {"lm_head.weight": np.zeros((6, 8), np.float32)}, TINY)
    headless = dataclasses.replace(TINY, vocab_size=0)
    assert "lm_head" not in wav2vec2_weights.convert(state, headless)
    with pytest.raises(ValueError, match="gives 'hidden' or the hidden states 0 to 1"):
        wav2vec2_features.encode({}, headless, np.zeros(400), mode="full", output="logits")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "whisper"}, "model_type 'whisper'"),
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"conv_pos_batch_norm": True}, "conv_pos_batch_norm True"),
        ({"num_attention_heads": 3}, "num_heads is 3"),
        ({"conv_dim": (8,)}, "1, 7, 7 entries"),
        ({"feat_extract_norm": "batch"}, "conv_norm is 'batch'"),
    ],
)
def test_configs_of_other_networks_are_refused(change, message):
    entries = {"model_type": "wav2vec2"} | _SIZES | _VARIANTS["base"]
    with pytest.raises(ValueError, match=message):
        wav2vec2_weights.config_from_json(entries | change, ctc=True)
    with pytest.raises(ValueError, match="lacks conv_stride"):
        wav2vec2_weights.config_from_json(
            {k: v for k, v in entries.items() if k != "conv_stride"}, False
        )


_LENGTHS = [0, 399, 400, 719, 720, 18_920, 19_199, 19_200, 22_079, 22_080, 35_200, 41_234]


def _network_that_tells_where(monkeypatch):
    """Row r of a segment becomes the sample its field starts with; the sound is its own index."""
    shapes = set()

    def run(params, samples, config, output):
        shapes.add(len(samples))
        rows = config.num_rows(len(samples))
        return samples[: rows * 320 : 320, None] * np.ones((1, 5), np.float32)

    monkeypatch.setattr(wav2vec2_features, "_run", run)
    monkeypatch.setattr(wav2vec2_features, "standardise", lambda samples: samples)
    return shapes


@pytest.mark.parametrize("mode", wav2vec2_features.MODES)
def test_every_row_comes_once_and_in_its_place(monkeypatch, mode):
    shapes = _network_that_tells_where(monkeypatch)
    lengths = [319_999, 320_000, 320_080, 320_399, 320_400, 640_000, 640_080, 700_001]
    for num_samples in _LENGTHS + lengths:
        samples = np.arange(num_samples, dtype=np.float32)
        rows = wav2vec2_features.encode({}, TINY, samples, mode=mode, output="logits")
        expected = [320.0 * r for r in range(num_samples) if 320 * r + 400 <= num_samples]
        assert len(rows) == TINY.num_rows(num_samples)
        np.testing.assert_array_equal(rows[:, 0], expected)
    # Long sounds make few different programs: the whole segments and the ends.
    assert {"streaming": 22_400, "chunked": 320_080, "full": 700_001}[mode] in shapes


@pytest.mark.parametrize("num_samples", [2000, 18_920, 35_200])
def test_streaming_equals_a_buffer_filled_by_pieces(num_samples):
    """The published procedure: a buffer of 20 ms pieces, run when it holds 70 of them."""
    sound = _sound(num_samples) / np.float32(32768)
    pieces = [sound[start : start + 320] for start in range(0, num_samples, 320)] + [None]
    buffer, expected = [np.zeros(320, np.float32)] * 10, []
    run = functools.partial(wav2vec2_features.encode, mode="full", output="logits")
    for piece in pieces:
        if piece is not None:
            buffer.append(piece)
            if len(buffer) < 70:
                continue
        rows = run(_tiny_params(), TINY, np.concatenate(buffer))
        expected.append(rows[10:] if piece is None else rows[10:60])
        buffer = buffer[-20:]
    found = wav2vec2_features.encode(
        _tiny_params(), TINY, _sound(num_samples), mode="streaming", output="logits"
    )
    _close(found, np.concatenate(expected), 1e-5)


def test_chunked_hubert_equals_transformers_on_each_chunk(tmp_path):
    model, entries = _oracle("hubert", "large", False)
    config = wav2vec2_weights.config_from_json(entries, ctc=False)
    params = wav2vec2_weights.convert(_weights(tmp_path, model), config)
    sound = _sound(330_001)
    whole = wav2vec2_features.standardise(sound)
    parts = [_theirs(model, p).last_hidden_state[0] for p in (whole[:320_080], whole[320_000:])]
    expected = np.concatenate([part.numpy() for part in parts])
    found = wav2vec2_features.encode(params, config, sound, mode="chunked", output="hidden")
    _close(found, expected, 1e-4)
    windows = wav2vec2_features.hidden_features(params, config, sound)
    assert windows.shape == (515, 2, 16) and len(expected) == 1031
    np.testing.assert_array_equal(windows[300], found[600:602])


def test_letters_per_frame_equal_transformers_on_a_short_sound(tmp_path):
    """One segment, the 10 rows of silence in front included, standardised together."""
    model, entries = _oracle("wav2vec2", "large", True)
    config = wav2vec2_weights.config_from_json(entries, ctc=True)
    params = wav2vec2_weights.convert(_weights(tmp_path, model), config)
    sound = _sound(12_345 - 3200)
    padded = np.pad(sound, (3200, 0))
    rows = _theirs(model, wav2vec2_features.standardise(padded)).logits[0, 10:].numpy()
    found = wav2vec2_features.letter_features(params, config, sound)
    assert len(rows) == 28 and found.shape == (15, 16, 12)
    _close(found, wav2vec2_features.logit_windows(rows), 1e-5)
    fixed = wav2vec2_features.letter_features(params, config, sound, num_frames=20)
    np.testing.assert_array_equal(fixed[:15], found)
    layer = wav2vec2_features.hidden_features(
        params, config, sound, mode="full", layer=1, num_frames=15
    )
    states = _theirs(
        model, wav2vec2_features.standardise(sound), output_hidden_states=True
    ).hidden_states
    _close(layer[:14].reshape(28, 16), states[1][0].numpy(), 1e-5)
    assert not layer[14].any()


@pytest.mark.parametrize("num_rows", [0, 1, 2, 7, 8, 17, 664, 665])
@pytest.mark.parametrize("num_frames", [None, 0, 1, 9, 400])
def test_windows_equal_a_slow_loop(num_rows, num_frames):
    rows = 1.0 + np.arange(3 * num_rows, dtype=np.float32).reshape(num_rows, 3)
    for function, first, width, published in (
        (wav2vec2_features.logit_windows, -8, 16, num_rows // 2 + 1),
        (wav2vec2_features.pair_windows, 0, 2, num_rows // 2),
    ):
        found = function(rows, num_frames)
        frames = published if num_frames is None else num_frames
        expected = np.zeros((frames, width, 3), np.float32)
        for i in range(frames):
            for j in range(width):
                if 0 <= 2 * i + first + j < num_rows:
                    expected[i, j] = rows[2 * i + first + j]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


def test_published_counts():
    """13.305 s with 332 video frames."""
    assert TINY.num_rows(212_885) == 665
    assert len(wav2vec2_features.pair_windows(np.zeros((665, 1)))) == 332
    assert len(wav2vec2_features.logit_windows(np.zeros((665, 1)))) == 333


def test_bad_requests_are_refused():
    with pytest.raises(ValueError, match="mode is 'offline'; expected one of streaming"):
        wav2vec2_features.encode({}, TINY, np.zeros(9), mode="offline", output="hidden")
    with pytest.raises(ValueError, match=r"output is 2; .* 'logits', 'hidden' .* 0 to 1"):
        wav2vec2_features.encode({}, TINY, np.zeros(9), mode="full", output=2)
    with pytest.raises(ValueError, match="16 kHz mono"):
        wav2vec2_features.encode({}, TINY, np.zeros((9, 2)), mode="full", output=0)
    fast = dataclasses.replace(TINY, conv_strides=(5, 2, 2, 2, 2, 2, 1))
    with pytest.raises(ValueError, match="multiply to 160; expected 320"):
        wav2vec2_features.letter_features({}, fast, np.zeros(9))
    assert wav2vec2_features.letter_features({}, TINY, np.zeros(9, np.int16)).shape == (1, 16, 5)


@pytest.mark.parametrize("letters", [False, True], ids=["hidden", "letters"])
@pytest.mark.parametrize("variant", ["base", "large"])
def test_a_saved_model_is_loaded_with_its_config(tmp_path, variant, letters):
    """transformers' folder as it is: config.json and model.safetensors, of the CTC form."""
    model, entries = _oracle("hubert", variant, True)
    model.save_pretrained(tmp_path)
    found = wav2vec2_checkpoint.load(tmp_path / "model.safetensors", letters)
    assert found.config == wav2vec2_weights.config_from_json(entries, ctc=letters)
    samples = wav2vec2_features.standardise(_sound(12_345))
    states, logits = _compiled(found.config)({"params": found.params}, samples)
    expected = _theirs(model.hubert, samples).last_hidden_state[0].numpy()
    _close(np.asarray(states[-1]), expected, 1e-5)
    assert (logits is None) == (not letters)
    variables.save(tmp_path / "ours.npz", found.params)
    again = wav2vec2_checkpoint.load(tmp_path / "ours.npz", letters)
    assert again.config == found.config
    jax.tree.map(np.testing.assert_array_equal, again.params, found.params)


_ALONE = wav2vec2.Config(
    conv_widths=(4, 5, 6, 7, 8, 9, 10),
    width=128,
    num_layers=3,
    num_heads=2,
    ffn_width=24,
    position_kernel=6,
    position_groups=4,
    vocab_size=5,
)


@pytest.mark.parametrize("large", [False, True], ids=["base", "large"])
def test_sizes_are_told_by_the_arrays_alone(tmp_path, large):
    torch = pytest.importorskip("torch")
    norm = {"conv_bias": True, "conv_norm": "layer", "pre_norm": True} if large else {}
    config = dataclasses.replace(_ALONE, **norm)
    state = _random_state(config)
    named = {k if k.startswith("lm_head") else f"hubert.{k}": v for k, v in state.items()}
    torch.save({k: torch.tensor(v) for k, v in named.items()}, tmp_path / "pytorch_model.bin")
    found = wav2vec2_checkpoint.load(tmp_path / "pytorch_model.bin", letters=True)
    assert found.config == config
    jax.tree.map(
        np.testing.assert_array_equal, found.params, wav2vec2_weights.convert(state, config)
    )
    jax.tree.map(np.testing.assert_array_equal, found.params, wav2vec2_checkpoint.convert(named))
    bare = wav2vec2_checkpoint.load(tmp_path / "pytorch_model.bin", letters=False)
    assert bare.config == dataclasses.replace(config, vocab_size=0) and "lm_head" not in bare.params
    variables.save(tmp_path / "ours.npz", found.params)
    for letters, expected in ((True, found), (False, bare)):
        assert wav2vec2_checkpoint.load(tmp_path / "ours.npz", letters).config == expected.config


def test_published_sizes_are_recognised():
    for preset in (BASE, LARGE):
        for letters in (0, 32, 44):
            config = dataclasses.replace(preset, vocab_size=letters)
            shapes = wav2vec2_weights.expected_shapes(config) | {
                "masked_spec_embed": (preset.width,)
            }
            assert wav2vec2_checkpoint.config_from_shapes(shapes, bool(letters)) == config


def test_files_that_do_not_tell_are_refused(tmp_path):
    headless = dataclasses.replace(_ALONE, vocab_size=0)
    state = _random_state(headless)
    variables.save(tmp_path / "a.npz", wav2vec2_weights.convert(state, headless))
    with pytest.raises(ValueError, match="no letters' head"):
        wav2vec2_checkpoint.load(tmp_path / "a.npz", letters=True)
    entries = {"model_type": "hubert"} | _SIZES | _VARIANTS["base"]
    (tmp_path / "config.json").write_text(json.dumps(entries))
    with pytest.raises(ValueError, match="that is of another model"):
        wav2vec2_checkpoint.load(tmp_path / "a.npz", letters=False)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is no JSON"):
        wav2vec2_checkpoint.load(tmp_path / "a.npz", letters=False)
    variables.save(tmp_path / "b.npz", {"params": {"x": np.zeros(2)}})
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"b\.npz has nothing under 'feature_extractor'"):
        wav2vec2_checkpoint.load(tmp_path / "b.npz", letters=False)
    shapes = wav2vec2_weights.expected_shapes(headless)
    key = "feature_extractor.conv_layers.3.conv.weight"
    for change, message in (
        ({key: None}, key),
        ({key: (7, 6, 9)}, "9, 3, 2, 2"),
        ({wav2vec2_weights.DIRECTION: (100, 25, 6)}, "100 wide"),
    ):
        wrong = {k: v for k, v in (shapes | change).items() if v}
        with pytest.raises(ValueError, match=message):
            wav2vec2_checkpoint.config_from_shapes(wrong, letters=False)
