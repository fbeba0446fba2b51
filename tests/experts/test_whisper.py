"""The Whisper encoder and its front end against transformers', chunks without seams."""

import itertools
import os
import pathlib

import numpy as np
import pytest

from fg3dgs_jax.experts.audio import whisper

WIDTH, LAYERS = 128, 2


def _random_arrays(seed=0):
    rng = np.random.default_rng(seed)

    def draw(*shape, fan=None):
        return (rng.normal(size=shape) / np.sqrt(fan or 100)).astype(np.float16)

    arrays = {
        "num_heads": np.int16(WIDTH // 64),
        "position_encodings/encodings": draw(1500, WIDTH, fan=1),
    }
    for name, width_in in (("conv1", 80), ("conv2", WIDTH)):
        arrays |= {
            f"{name}/weight": draw(WIDTH, width_in, 3, fan=width_in),
            f"{name}/bias": draw(WIDTH),
        }
    norms = ["layer_norm"]
    for i in range(LAYERS):
        for part, sizes in (
            ("self_attention", (3 * WIDTH, WIDTH, WIDTH)),
            ("ffn", (4 * WIDTH, WIDTH, 4 * WIDTH)),
        ):
            key = f"layer_{i}/{part}"
            arrays |= {
                f"{key}/linear_0/weight": draw(sizes[0], WIDTH, fan=WIDTH),
                f"{key}/linear_0/bias": draw(sizes[0]),
            }
            arrays |= {
                f"{key}/linear_1/weight": draw(WIDTH, sizes[2], fan=sizes[2]),
                f"{key}/linear_1/bias": draw(WIDTH),
            }
            norms.append(f"{key}/layer_norm")
    for name in norms:
        arrays |= {f"{name}/gamma": 1 + draw(WIDTH), f"{name}/beta": draw(WIDTH)}
    for i in range(LAYERS):  # Whisper's keys have no bias
        arrays[f"layer_{i}/self_attention/linear_0/bias"][WIDTH : 2 * WIDTH] = 0
    return {f"encoder/{key}": value for key, value in arrays.items()}


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("whisper") / "random.npz"
    np.savez(path, **_random_arrays())
    return path


@pytest.fixture(scope="module")
def params(random_weights):
    return whisper.load(random_weights)


def _speech(seconds, seed=0):
    """Noise and gliding harmonics, loud four times a second; int16 at 16 kHz."""
    rng, time = np.random.default_rng(seed), np.arange(int(seconds * 16_000)) / 16_000
    phase = 2 * np.pi * np.cumsum(130 + 30 * np.sin(3 * time)) / 16_000
    voice = sum(np.sin(k * phase) / k for k in range(1, 12)) + 0.2 * rng.normal(size=len(time))
    return (4000 * voice * np.sin(np.pi * 4 * time) ** 2).astype(np.int16)


def _torch_features(path, columns):
    """transformers' encoder filled from the file, on log-mel [3000, 80]."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    arrays = {
        k.removeprefix("encoder/"): torch.tensor(np.float32(v)) for k, v in np.load(path).items()
    }
    width, layers = (
        arrays["layer_norm/beta"].shape[0],
        len([k for k in arrays if k.endswith("ffn/layer_norm/beta")]),
    )
    config = transformers.WhisperConfig(
        d_model=width,
        encoder_layers=layers,
        encoder_attention_heads=width // 64,
        encoder_ffn_dim=4 * width,
        num_mel_bins=80,
    )
    state = {"embed_positions.weight": arrays["position_encodings/encodings"]}
    state |= {
        f"{c}.{p}": arrays[f"{c}/{p}"] for c in ("conv1", "conv2") for p in ("weight", "bias")
    }
    norms = {"layer_norm": "layer_norm"}
    for i in range(layers):
        norms |= {f"layers.{i}.self_attn_layer_norm": f"layer_{i}/self_attention/layer_norm"}
        norms |= {f"layers.{i}.final_layer_norm": f"layer_{i}/ffn/layer_norm"}
        for p in ("weight", "bias"):
            parts = arrays[f"layer_{i}/self_attention/linear_0/{p}"].split(width)
            state |= {
                f"layers.{i}.self_attn.{n}_proj.{p}": v for n, v in zip("qkv", parts, strict=True)
            }
            state[f"layers.{i}.self_attn.out_proj.{p}"] = arrays[
                f"layer_{i}/self_attention/linear_1/{p}"
            ]
            state |= {
                f"layers.{i}.fc{j + 1}.{p}": arrays[f"layer_{i}/ffn/linear_{j}/{p}"] for j in (0, 1)
            }
        assert not state.pop(f"layers.{i}.self_attn.k_proj.bias").any()
    state |= {
        f"{n}.{p}": arrays[f"{k}/{q}"]
        for n, k in norms.items()
        for p, q in (("weight", "gamma"), ("bias", "beta"))
    }
    encoder = WhisperEncoder(config).eval()
    encoder.load_state_dict(state)
    with torch.no_grad():
        return encoder(torch.tensor(columns.T[None])).last_hidden_state[0].numpy()


def _theirs_log_mel(samples):
    transformers = pytest.importorskip("transformers")
    extractor = transformers.WhisperFeatureExtractor(feature_size=80)
    return extractor(samples, sampling_rate=16_000, return_tensors="np").input_features[0].T


def test_front_end_equals_transformers():
    samples = _speech(3.3).astype(np.float32) / 32768
    np.testing.assert_allclose(whisper.log_mel(samples, 3000), _theirs_log_mel(samples), atol=1e-4)


def test_encoder_equals_transformers_on_random_weights(random_weights, params):
    samples = _speech(7.01)
    expected = _torch_features(random_weights, whisper.log_mel(samples / np.float32(32768), 3000))
    features = whisper.encode(params, samples)
    assert features.shape == (351, WIDTH) and features.dtype == np.float32
    np.testing.assert_allclose(features, expected[:351], atol=1e-3)


def test_encoder_equals_transformers_on_the_real_weights():
    root = pathlib.Path(__file__).resolve().parents[2]
    folder = pathlib.Path(os.environ.get("FG3DGS_TEST_DATA", root.parent / "shared"))
    path = folder / "models" / "whisper_tiny_en_encoder_fp16.npz"
    if not path.exists():
        pytest.skip(f"no Whisper weights at {path}")
    samples = _speech(5)
    expected = _torch_features(path, _theirs_log_mel(samples / np.float32(32768)))
    features = whisper.encode(whisper.load(path), samples)
    assert features.shape == (250, 384) and features.std() > 0.3
    np.testing.assert_allclose(features, expected[:250], atol=1e-3)


@pytest.mark.parametrize("rows", [1, 1499, 1500, 1501, 2749, 2750, 2751, 9000])
def test_chunks_cover_every_row_and_overlap(rows):
    starts = whisper.chunk_starts(rows)
    assert starts[0] == 0 and len(starts) == len(set(starts))
    assert all(b <= a + 1500 - 250 for a, b in itertools.pairwise(starts))
    assert starts[-1] == max(0, rows - 1500)  # no chunk is mostly padding


@pytest.mark.parametrize("rows", [1501, 1600, 2750, 2751, 4025])
def test_long_sound_has_no_seam(params, monkeypatch, rows):
    """Chunks that disagree by 1: the result climbs from one to the next in small steps."""
    calls = []

    def encode_chunk(params, columns):
        assert columns.shape == (3000, 80)
        calls.append(columns)
        return np.full((1500, WIDTH), float(len(calls)), np.float32)

    monkeypatch.setattr(whisper, "_encode_chunk", encode_chunk)
    features = whisper.encode(params, np.zeros(rows * 320, np.int16))
    assert features.shape == (rows, WIDTH) and len(calls) == len(whisper.chunk_starts(rows)) > 1
    steps = np.diff(features[:, 0])
    if rows > 1750:
        assert features[0, 0] == 1 and features[-1, 0] == len(calls)
    assert steps.min() >= -1e-6 and steps.max() < 1.01 / 250


def test_rows_before_the_second_chunk_are_those_of_the_sound_alone(params):
    samples = _speech(47)
    features = whisper.encode(params, samples)
    assert features.shape == (47 * 50, WIDTH)
    alone = whisper.encode(params, samples[: 30 * 16_000])
    before = whisper.chunk_starts(len(features))[1]
    np.testing.assert_allclose(features[: before - 2], alone[: before - 2], atol=2e-3)


def test_short_and_empty_sound(params):
    assert whisper.encode(params, np.zeros(0, np.int16)).shape == (0, WIDTH)
    assert np.isfinite(whisper.encode(params, np.zeros(1, np.int16))).all()
    assert len(whisper.encode(params, _speech(0.0201))) == 2


def test_a_file_of_another_kind_is_refused(tmp_path):
    arrays = _random_arrays()
    del arrays["encoder/layer_1/ffn/linear_1/bias"]
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match="layer_1/ffn/linear_1/bias"):
        whisper.load(tmp_path / "a.npz")
