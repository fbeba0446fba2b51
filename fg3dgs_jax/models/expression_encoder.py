"""tau_e of eq. (5): expression channels -> f_e."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from fg3dgs_jax.config import defaults as config_lib
from fg3dgs_jax.models.layers import MLP
from fg3dgs_jax.types import Array


class ExpressionEncoder(nn.Module):
    """Expression [..., E], the last channel AU45 (blink) -> f_e [..., E].

    Blinks are read from their channel directly, and no other expression can move the lids: the last
    channel passes unchanged, the others through a small MLP.
    """

    config: config_lib.ExpressionEncoder

    @nn.compact
    def __call__(self, expression: Float[Array, "*b E"]) -> Float[Array, "*b E"]:
        """Encodes all channels but the last."""
        others, blink = expression[..., :-1], expression[..., -1:]
        if others.shape[-1] == 0:
            return blink
        code = MLP((self.config.hidden, others.shape[-1]), name="mlp")(others)
        return jnp.concatenate([code, blink], -1)
