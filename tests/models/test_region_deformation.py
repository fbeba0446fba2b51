import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fg3dgs_jax.config.defaults import FaceMotion
from fg3dgs_jax.models.region_deformation import ConcatDeformation, RegionDeformation


def inputs(count=7, seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    return tuple(
        jax.random.normal(k, s) for k, s in zip(keys, [(count, 36), (32,), (6,)], strict=True)
    )


def mlp(x, params):
    for i in range(len(params)):
        x = x @ np.asarray(params[f"layer_{i}"]["kernel"])
        x = np.maximum(x, 0.02 * x) if i < len(params) - 1 else x
    return x


def test_parameter_counts():
    net = RegionDeformation(FaceMotion())
    variables = jax.eval_shape(net.init, jax.random.key(0), *inputs())
    sizes = {k: sum(x.size for x in jax.tree.leaves(v)) for k, v in variables["params"].items()}
    assert sizes == {"audio_gate": 2_176, "expression_gate": 672, "deformation": 9_472}


@pytest.mark.parametrize("offset", [0.0, 0.3])
def test_equations_6_to_8(offset):
    h, f_a, f_e = inputs()
    net = RegionDeformation(FaceMotion(expression_gate_offset=offset))
    variables = jax.jit(net.init)(jax.random.key(1), h, f_a, f_e)
    deltas, gates = jax.jit(net.apply)(variables, h, f_a, f_e)
    params, h = variables["params"], np.asarray(h)
    s_a = mlp(h, params["audio_gate"])
    s_e = np.maximum(offset + mlp(h, params["expression_gate"]), 0)
    z = np.concatenate([h, s_a * f_a, s_e * f_e], 1)
    out = mlp(z, params["deformation"])
    np.testing.assert_allclose(deltas.means, 0.01 * out[:, :3], atol=1e-6)
    np.testing.assert_allclose(deltas.quats, out[:, 3:7], atol=1e-5)
    np.testing.assert_allclose(deltas.raw_scales, out[:, 7:], atol=1e-5)
    np.testing.assert_allclose(gates.audio, np.linalg.norm(s_a, axis=1), rtol=1e-5)
    np.testing.assert_allclose(gates.expression, np.linalg.norm(s_e, axis=1), rtol=1e-5)


def test_gradients_are_finite_where_gates_are_closed():
    h, f_a, f_e = inputs()
    net = RegionDeformation(FaceMotion())
    variables = jax.jit(net.init)(jax.random.key(1), h, f_a, f_e)

    def loss(h):
        _, gates = net.apply(variables, h, f_a, f_e)
        return jnp.sum(gates.audio + gates.expression)

    assert np.all(np.isfinite(jax.grad(loss)(jnp.zeros_like(h))))


def test_last_layer_scale_and_axis_gain():
    h, f_a, f_e = inputs()
    full, small = (RegionDeformation(FaceMotion(last_layer_scale=s)) for s in (1.0, 0.1))
    outs = [
        n.apply(jax.jit(n.init)(jax.random.key(1), h, f_a, f_e), h, f_a, f_e)[0].means
        for n in (full, small)
    ]
    np.testing.assert_allclose(outs[1], 0.1 * outs[0], rtol=1e-5)
    concat = ConcatDeformation(axis_gain=(0.2, 1.0, 0.2))
    variables = jax.jit(concat.init)(jax.random.key(2), h, f_a)
    assert sum(x.size for x in jax.tree.leaves(variables)) == 3_296
    plain = ConcatDeformation().apply(variables, h, f_a).means
    np.testing.assert_allclose(
        concat.apply(variables, h, f_a).means, plain * jnp.array([0.2, 1, 0.2]), rtol=1e-5
    )
