"""High-frequency motion, eqs. (10)-(12): each Gaussian attends to several tokens of what drives it.

The readings of eqs. (10) and (11): the f_r that is queried with and added back is the spatial
feature of each Gaussian, c_r are tokens of the condition. There must be more than one: softmax over
a single key is 1 for every query, and the attention output would be the same for all Gaussians.
Hence the windows before pooling, one token an expression channel, and a learned null token that
lets a Gaussian listen to nothing.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from fg3dgs_jax.config.defaults import GateFrom, HighFrequencyMotion
from fg3dgs_jax.models.layers import MLP, FeedForward, Linear, small_einsum, uniform_fan_in
from fg3dgs_jax.models.region_deformation import MOVES, MOVES_TURNS_SCALES, as_deltas
from fg3dgs_jax.types import Array, GaussianDeltas


class AudioTokens(nn.Module):
    """Window embeddings [K, C] -> tokens [K + 1, d_model]: projected + position code, and null."""

    d_model: int = 64

    @nn.compact
    def __call__(self, windows: Float[Array, "K C"]) -> Float[Array, "K+1 D"]:
        """Makes one token a window, and the null token."""
        code = self.param("position", _embedding, (windows.shape[0], self.d_model))
        null = self.param("null", _embedding, (1, self.d_model))
        return jnp.concatenate([Linear(self.d_model, name="project")(windows) + code, null])


class ExpressionTokens(nn.Module):
    """f_e [E] -> tokens [E + 1, d_model]: value x learned vector + learned identity, and null."""

    d_model: int = 64

    @nn.compact
    def __call__(self, values: Float[Array, "E"]) -> Float[Array, "E+1 D"]:
        """Makes one token a channel, and the null token."""
        direction = self.param("direction", _embedding, (values.shape[0], self.d_model))
        identity = self.param("identity", _embedding, (values.shape[0], self.d_model))
        null = self.param("null", _embedding, (1, self.d_model))
        return jnp.concatenate([values[:, None] * direction + identity, null])


class CrossModalAttention(nn.Module):
    """phi_cm of eq. (11): queries [N, C], tokens [K, C] -> [N, C], multi-head.

    The query projection is folded into the keys and the output projection into the values: K is
    about 9 and N thousands, so this saves two [N, C] x [C, C] products and changes nothing else.
    """

    heads: int = 2

    @nn.compact
    def __call__(
        self, queries: Float[Array, "N C"], tokens: Float[Array, "K C"]
    ) -> Float[Array, "N C"]:
        """Attends from every Gaussian to the tokens."""
        width = queries.shape[-1]
        if width % self.heads:
            raise ValueError(f"d_model {width} is not divisible by heads {self.heads}")
        shape = (width, self.heads, width // self.heads)
        query, key, value = (self.param(n, _projection, shape) for n in ("query", "key", "value"))
        out = self.param("out", _projection_out, (self.heads, width // self.heads, width))
        bias = self.param("out_bias", nn.initializers.zeros, (width,))
        keys, values = (small_einsum("kc,chd->khd", tokens, x) for x in (key, value))
        folded_keys = small_einsum("chd,khd->chk", query, keys) * shape[-1] ** -0.5
        folded_values = small_einsum("khd,hdo->hko", values, out)
        weights = nn.softmax(jnp.einsum("nc,chk->nhk", queries, folded_keys))
        return jnp.einsum("nhk,hko->no", weights, folded_values) + bias


class CrossModalGating(nn.Module):
    """h [N, C], tokens [K, d_model] -> GaussianDeltas and the gate lambda [N].

    Gated by condition, which is eq. (10) to the letter, there is one lambda a frame: the pooled
    condition [D] must then be given.
    """

    config: HighFrequencyMotion

    @nn.compact
    def __call__(
        self,
        h: Float[Array, "N C"],
        tokens: Float[Array, "K D"],
        condition: Float[Array, "A"] | None = None,
    ) -> tuple[GaussianDeltas, Float[Array, "N"]]:
        """Moves every Gaussian; eqs. (10)-(12)."""
        config = self.config
        literal = config.gate_from == GateFrom.CONDITION
        gate_input = condition[None] if literal and condition is not None else h
        gate = nn.sigmoid(MLP((config.gate_width, 1), name="gate")(gate_input))  # eq. (10)
        q = Linear(config.d_model, name="input")(h)
        z = gate * CrossModalAttention(config.heads, name="attention")(q, tokens)  # eq. (11)
        z1 = FeedForward(config.ffn_width, name="ffn_1")(q + z)  # eq. (11)
        z2 = FeedForward(config.ffn_width, name="ffn_2")(z1 + z)  # eq. (11)
        outputs = MOVES_TURNS_SCALES if config.turns_and_scales else MOVES
        motion = MLP((config.motion_width, outputs), config.last_layer_scale, name="motion")
        deltas = as_deltas(motion(z2), config.axis_gain)  # eq. (12)
        return deltas, jnp.broadcast_to(gate[:, 0], h.shape[:1])


def _embedding(key: Array, shape: tuple[int, ...]) -> Array:
    return jax.random.normal(key, shape) * shape[-1] ** -0.5


def _projection(key: Array, shape: tuple[int, ...]) -> Array:
    return uniform_fan_in()(key, (shape[0], shape[1] * shape[2])).reshape(shape)


def _projection_out(key: Array, shape: tuple[int, ...]) -> Array:
    return uniform_fan_in()(key, (shape[0] * shape[1], shape[2])).reshape(shape)
