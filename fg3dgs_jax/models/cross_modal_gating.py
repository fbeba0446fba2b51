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

from fg3dgs_jax.models.layers import MLP, FeedForward, Linear, uniform_fan_in
from fg3dgs_jax.models.region_deformation import as_deltas
from fg3dgs_jax.types import Array, GaussianDeltas


class AudioTokens(nn.Module):
    """Window embeddings [K, C] -> tokens [K + 1, d_model]: projected + position code, and null."""

    d_model: int = 64

    @nn.compact
    def __call__(self, windows):
        code = self.param("position", _embedding, (windows.shape[0], self.d_model))
        null = self.param("null", _embedding, (1, self.d_model))
        return jnp.concatenate([Linear(self.d_model, name="project")(windows) + code, null])


class ExpressionTokens(nn.Module):
    """f_e [E] -> tokens [E + 1, d_model]: value x learned vector + learned identity, and null."""

    d_model: int = 64

    @nn.compact
    def __call__(self, values):
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
    def __call__(self, queries, tokens):
        width = queries.shape[-1]
        if width % self.heads:
            raise ValueError(f"d_model {width} is not divisible by heads {self.heads}")
        shape = (width, self.heads, width // self.heads)
        query, key, value = (self.param(n, _projection, shape) for n in ("query", "key", "value"))
        out = self.param("out", _projection_out, (self.heads, width // self.heads, width))
        bias = self.param("out_bias", nn.initializers.zeros, (width,))
        keys = jnp.einsum("kc,chd->khd", tokens, key)
        folded_keys = jnp.einsum("chd,khd->chk", query, keys) * shape[-1] ** -0.5
        folded_values = jnp.einsum("kc,chd,hdo->hko", tokens, value, out)
        weights = nn.softmax(jnp.einsum("nc,chk->nhk", queries, folded_keys))
        return jnp.einsum("nhk,hko->no", weights, folded_values) + bias


class CrossModalGating(nn.Module):
    """h [N, C], tokens [K, d_model] -> GaussianDeltas and the gate lambda [N].

    `num_outputs` 3 moves the means only, as eq. (12); 10 also turns and scales (Fig. 6).

    `gate_from` "spatial" gates by place (one lambda a Gaussian); "condition" is the literal eq.
    (10), one lambda a frame from the pooled condition [D], which must then be given.
    """

    d_model: int = 64
    heads: int = 2
    ffn_width: int = 128
    gate_width: int = 16
    motion_width: int = 32
    axis_gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    last_layer_scale: float = 0.1
    gate_from: str = "spatial"
    num_outputs: int = 3

    @nn.compact
    def __call__(self, h, tokens, condition=None) -> tuple[GaussianDeltas, Array]:
        if self.num_outputs not in (3, 10):
            raise ValueError(f"num_outputs is {self.num_outputs}; expected 3 (means) or 10")
        if self.gate_from not in ("spatial", "condition"):
            raise ValueError(f'gate_from is {self.gate_from!r}; expected "spatial" or "condition"')
        gate_input = h if self.gate_from == "spatial" else condition[None]
        gate = nn.sigmoid(MLP((self.gate_width, 1), name="gate")(gate_input))  # eq. (10)
        q = Linear(self.d_model, name="input")(h)
        z = gate * CrossModalAttention(self.heads, name="attention")(q, tokens)  # eq. (11)
        z1 = FeedForward(self.ffn_width, name="ffn_1")(q + z)  # eq. (11)
        z2 = FeedForward(self.ffn_width, name="ffn_2")(z1 + z)  # eq. (11)
        motion = MLP((self.motion_width, self.num_outputs), self.last_layer_scale, name="motion")
        deltas = as_deltas(motion(z2), self.axis_gain)  # eq. (12)
        return deltas, jnp.broadcast_to(gate[:, 0], h.shape[:1])


def _embedding(key, shape):
    return jax.random.normal(key, shape) * shape[-1] ** -0.5


def _projection(key, shape):
    return uniform_fan_in()(key, (shape[0], shape[1] * shape[2])).reshape(shape)


def _projection_out(key, shape):
    return uniform_fan_in()(key, (shape[0] * shape[1], shape[2])).reshape(shape)
