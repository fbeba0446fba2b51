import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fg3dgs_jax.config import defaults
from fg3dgs_jax.models.audio_encoder import AudioEncoder, _convolve, with_statistics

ENCODER = AudioEncoder(defaults.AudioEncoder())
apply = jax.jit(ENCODER.apply)


@functools.cache
def build(shape):
    """Parameters and windows; cached, for compiling is what costs here."""
    windows = jax.random.normal(jax.random.key(0), shape)
    return jax.jit(ENCODER.init)(jax.random.key(1), windows), windows


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_parameter_counts():
    variables, _ = build((8, 16, 29))
    assert count(variables["params"]["net"]) == 30_720
    assert count(variables["params"]["attention"]) == 2_149


@pytest.mark.parametrize("shape", [(8, 16, 29), (8, 2, 384), (8, 1, 512)])
def test_shapes_and_batches(shape):
    variables, windows = build(shape)
    code = apply(variables, windows)
    assert code.windows.shape == (8, 32) and code.pooled.shape == (32,)
    batch = apply(variables, jnp.stack([windows, 2 * windows]))
    np.testing.assert_allclose(batch.pooled[0], code.pooled, rtol=1e-4, atol=1e-6)
    assert np.abs(batch.pooled[1] - batch.pooled[0]).max() > 1e-4


def test_windows_are_embedded_each_by_itself_and_pooled_inside_their_hull():
    variables, windows = build((8, 16, 29))
    code = apply(variables, windows)
    changed = apply(variables, windows.at[3].add(1.0))
    difference = np.abs(changed.windows - code.windows).max(1)
    assert difference[3] > 1e-3 and np.delete(difference, 3).max() < 1e-6
    assert np.all(code.pooled <= code.windows.max(0) + 1e-6)
    assert np.all(code.pooled >= code.windows.min(0) - 1e-6)


def test_statistics_take_out_the_size_and_level_of_each_channel():
    variables, windows = build((8, 16, 29))
    size, level = jnp.linspace(0.1, 9.0, 29), jnp.linspace(-5.0, 5.0, 29)
    variables = with_statistics({**variables, "statistics": {"audio": {}}}, windows)
    inner = {"params": variables["params"], "statistics": variables["statistics"]["audio"]}
    code = apply(inner, windows)
    rescaled = with_statistics({"statistics": {"audio": {}}}, windows * size + level)
    inner = {**inner, "statistics": rescaled["statistics"]["audio"]}
    np.testing.assert_allclose(apply(inner, windows * size + level).pooled, code.pooled, atol=1e-4)
    silent_eyes = {"params": {}}
    assert with_statistics(silent_eyes, windows) is silent_eyes


def test_agrees_with_torch():
    torch = pytest.importorskip("torch")
    variables, windows = build((8, 16, 29))
    params = jax.tree.map(np.asarray, variables["params"])

    def conv(x, p, stride):
        weight = torch.tensor(p["kernel"].transpose(2, 1, 0).copy())
        x = torch.nn.functional.conv1d(x, weight, torch.tensor(p["bias"]), stride, 1)
        return torch.nn.functional.leaky_relu(x, 0.02)

    def linear(x, p):
        p = p["Dense_0"]
        return x @ torch.tensor(p["kernel"]) + torch.tensor(p["bias"])

    net, attention = params["net"], params["attention"]
    x = torch.tensor(np.asarray(windows)).permute(0, 2, 1)
    for i in range(4):
        x = conv(x, net[f"conv_{i}"], 2)
    x = torch.nn.functional.leaky_relu(linear(x[..., 0], net["hidden"]), 0.02)
    x = linear(x, net["out"])
    y = x.T[None]
    for i in range(5):
        y = conv(y, attention[f"conv_{i}"], 1)
    weights = torch.softmax(linear(y[0], attention["weights"]), -1)
    code = apply(variables, windows)
    np.testing.assert_allclose(code.windows, x, atol=1e-5)
    np.testing.assert_allclose(code.pooled, (weights @ x)[0], atol=1e-5)


def test_starts_with_embeddings_that_tell_the_windows_apart():
    """At PyTorch's start they hardly differ, and training collapses them to one direction."""
    variables, _ = build((8, 2, 384))
    windows = jax.random.normal(jax.random.key(2), (64, 8, 2, 384))
    embeddings = np.asarray(apply(variables, windows).windows).reshape(-1, 32)
    spread = np.linalg.svd(embeddings - embeddings.mean(0), compute_uv=False)
    assert embeddings.std(0).mean() > 0.05
    assert spread[7] > 0.2 * spread[0]


def test_refuses_long_windows():
    variables, _ = build((8, 16, 29))
    with pytest.raises(ValueError, match=r"1\.\.16"):
        apply(variables, jnp.zeros((8, 17, 29)))


@pytest.mark.parametrize("length", [1, 2, 7, 16])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_as_products_are_convolutions(length, stride):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(3, length, 4)), rng.normal(size=(3, 4, 5))
    options = dict(dimension_numbers=("NHC", "HIO", "NHC"))
    found = _convolve(jnp.asarray(x), jnp.asarray(kernel), (stride,), [(1, 1)], **options)
    expected = jax.lax.conv_general_dilated(x, kernel, (stride,), [(1, 1)], **options)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
