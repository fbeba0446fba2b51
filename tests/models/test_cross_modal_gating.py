import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fg3dgs_jax.config.defaults import GateFrom, HighFrequencyMotion
from fg3dgs_jax.models.cross_modal_gating import (
    AudioTokens,
    CrossModalAttention,
    CrossModalGating,
    ExpressionTokens,
)


def setup(count=9, tokens=5, **fields):
    h, t, c = (
        jax.random.normal(k, s)
        for k, s in zip(
            jax.random.split(jax.random.key(0), 3), [(count, 36), (tokens, 64), (32,)], strict=True
        )
    )
    net = CrossModalGating(HighFrequencyMotion(**fields))
    return net, jax.jit(net.init)(jax.random.key(1), h, t, c), h, t, c


def linear(x, params):
    p = params["Dense_0"]
    return x @ np.asarray(p["kernel"]) + np.asarray(p["bias"])


def leaky(x):
    return np.where(x > 0, x, 0.02 * x)


def mlp(x, params):
    hidden = leaky(x @ np.asarray(params["layer_0"]["kernel"]))
    return hidden @ np.asarray(params["layer_1"]["kernel"])


def attend(q, tokens, p):
    """Unfolded multi-head attention, head by head."""
    out = np.asarray(p["out_bias"])
    for head in range(p["query"].shape[1]):
        query, key, value = (
            x @ np.asarray(p[n])[:, head]
            for x, n in [(q, "query"), (tokens, "key"), (tokens, "value")]
        )
        scores = query @ key.T / np.sqrt(query.shape[1])
        weights = np.exp(scores - scores.max(1, keepdims=True))
        out = out + (weights / weights.sum(1, keepdims=True)) @ value @ np.asarray(p["out"])[head]
    return out


def test_equations_10_to_12():
    net, variables, h, tokens, _ = setup(axis_gain=(0.2, 1.0, 0.2))
    deltas, gate = jax.jit(net.apply)(variables, h, tokens)
    p, h, tokens = variables["params"], np.asarray(h), np.asarray(tokens)
    gating = 1 / (1 + np.exp(-mlp(h, p["gate"])))
    q = linear(h, p["input"])
    z = gating * attend(q, tokens, p["attention"])
    z1 = linear(leaky(linear(q + z, p["ffn_1"]["up"])), p["ffn_1"]["down"])
    z2 = linear(leaky(linear(z1 + z, p["ffn_2"]["up"])), p["ffn_2"]["down"])
    expected = 0.01 * mlp(z2, p["motion"]) * np.array([0.2, 1, 0.2])
    np.testing.assert_allclose(gate, gating[:, 0], atol=1e-6)
    np.testing.assert_allclose(deltas.means, expected, rtol=1e-3, atol=1e-8)
    assert deltas.quats is None and deltas.raw_scales is None


def test_one_token_degenerates_and_two_do_not():
    """Softmax over one key is 1: every Gaussian would get the same attention output. Hence several
    tokens.
    """
    queries, tokens = (jax.random.normal(jax.random.key(i), (n, 64)) for i, n in ((0, 50), (1, 2)))
    net = CrossModalAttention()
    variables = jax.jit(net.init)(jax.random.key(2), queries, tokens)
    one = net.apply(variables, queries, tokens[:1])
    two = net.apply(variables, queries, tokens)
    assert float(jnp.var(one, 0).max()) < 1e-12
    assert float(jnp.var(two, 0).max()) > 1e-4


def test_literal_gate_is_one_number_a_frame():
    net, variables, h, tokens, condition = setup(gate_from=GateFrom.CONDITION)
    _, gate = net.apply(variables, h, tokens, condition)
    assert gate.shape == (9,) and float(jnp.ptp(gate)) == 0
    _, spatial_variables, *_ = setup()
    _, gate = CrossModalGating(HighFrequencyMotion()).apply(spatial_variables, h, tokens)
    assert float(jnp.ptp(gate)) > 1e-3
    with pytest.raises(ValueError, match="heads"):
        setup(heads=3)


def test_the_ablation_turns_and_scales_too():
    net, variables, h, tokens, _ = setup(turns_and_scales=True)
    deltas, _ = net.apply(variables, h, tokens)
    assert [x.shape for x in (deltas.means, deltas.quats, deltas.raw_scales)] == [
        (9, 3),
        (9, 4),
        (9, 3),
    ]


def test_tokens():
    windows = jax.random.normal(jax.random.key(0), (8, 32))
    audio = AudioTokens()
    variables = jax.jit(audio.init)(jax.random.key(1), windows)
    tokens = audio.apply(variables, windows)
    assert tokens.shape == (9, 64)
    np.testing.assert_array_equal(audio.apply(variables, 2 * windows)[8], tokens[8])  # null
    same = audio.apply(variables, jnp.ones((8, 32)))
    assert float(jnp.abs(same[0] - same[1]).max()) > 1e-2  # told apart by position
    values = jnp.array([0.0, 1.0, 2.0])
    expression = ExpressionTokens()
    variables = jax.jit(expression.init)(jax.random.key(1), values)
    p = variables["params"]
    expected = [v * d + i for v, d, i in zip(values, p["direction"], p["identity"], strict=True)]
    tokens = expression.apply(variables, values)
    np.testing.assert_allclose(tokens, [*expected, p["null"][0]], rtol=1e-6)
