import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax.config import defaults
from fg3dgs_jax.models.expression_encoder import ExpressionEncoder


def test_blink_passes_unchanged_and_the_others_through_the_mlp():
    expression = jnp.array([0.5, 0.0, 1.5, 0.2, 3.0, 1.7])
    encoder = ExpressionEncoder(defaults.ExpressionEncoder())
    variables = encoder.init(jax.random.key(0), expression)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == 160
    layers = variables["params"]["mlp"]
    hidden = np.asarray(expression[:5]) @ np.asarray(layers["layer_0"]["kernel"])
    hidden = np.where(hidden > 0, hidden, 0.02 * hidden)
    expected = [*(hidden @ np.asarray(layers["layer_1"]["kernel"])), 1.7]
    np.testing.assert_allclose(encoder.apply(variables, expression), expected, rtol=1e-5, atol=1e-6)


def test_batches_and_a_single_channel():
    encoder = ExpressionEncoder(defaults.ExpressionEncoder())
    batch = jax.random.normal(jax.random.key(0), (4, 6))
    variables = encoder.init(jax.random.key(1), batch[0])
    assert encoder.apply(variables, batch).shape == (4, 6)
    np.testing.assert_array_equal(encoder.apply({}, jnp.array([0.3])), jnp.array([0.3]))
