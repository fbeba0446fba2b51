"""Low-frequency motion, eqs. (6)-(8), and the concatenation net of the ablation without FAM."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from fg3dgs_jax.config.defaults import FaceMotion
from fg3dgs_jax.geometry import safe_norm
from fg3dgs_jax.models.layers import MLP
from fg3dgs_jax.types import Array, Gates, GaussianDeltas

METRES = 1e-2  # a network output of 1 moves a Gaussian by a centimetre
MOVES, MOVES_TURNS_SCALES = 3, 10  # outputs of a net: means; means, quats and raw scales


def as_deltas(out: Array, axis_gain: Sequence[float] = (1.0, 1.0, 1.0)) -> GaussianDeltas:
    """A net's output [N, 3], or [N, 10] that also turns and scales, as motion."""
    means = METRES * out[:, :3] * jnp.array(axis_gain)
    if out.shape[1] == MOVES:
        return GaussianDeltas(means)
    return GaussianDeltas(means, quats=out[:, 3:7], raw_scales=out[:, 7:10])


class RegionDeformation(nn.Module):
    """Spatial gates pick from both conditions what concerns a place; an MLP turns it into motion.

    h [N, C], f_a [D], f_e [E] -> GaussianDeltas (means, quats, raw_scales) and Gates [N].

    `expression_gate_offset`, ours, opens the gates at the start. Without it each channel of f_e has
    an even chance that its gate is 0 at the lids, without gradient, and blinks are learnt late.
    """

    config: FaceMotion

    @nn.compact
    def __call__(
        self, h: Float[Array, "N C"], f_a: Float[Array, "A"], f_e: Float[Array, "E"]
    ) -> tuple[GaussianDeltas, Gates]:
        """Gates both conditions by place and turns them into motion."""
        config = self.config
        s_a = MLP((config.audio_gate_width, f_a.shape[-1]), name="audio_gate")(h)  # eq. (6)
        s_e = MLP((config.expression_gate_width, f_e.shape[-1]), name="expression_gate")(h)
        s_e = nn.relu(config.expression_gate_offset + s_e)  # eq. (6)
        # Eq. (7), but f_a and f_e, the same for all Gaussians, are multiplied in as a gain.
        z, gain = jnp.concatenate([h, s_a, s_e], -1), (jnp.ones(h.shape[-1]), f_a, f_e)
        widths = (*config.widths, MOVES_TURNS_SCALES)
        deformation = MLP(widths, config.last_layer_scale, name="deformation")
        out = deformation(z, jnp.concatenate(gain))  # eq. (8)
        return as_deltas(out), Gates(audio=safe_norm(s_a), expression=safe_norm(s_e))


class ConcatDeformation(nn.Module):
    """h [N, C], condition [D] -> GaussianDeltas (of the means only: TalkingGaussian's mouth)."""

    widths: Sequence[int] = (32, 32)
    num_outputs: int = MOVES
    axis_gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    last_layer_scale: float = 1.0

    @nn.compact
    def __call__(self, h: Float[Array, "N C"], condition: Float[Array, "D"]) -> GaussianDeltas:
        """Turns place and condition side by side into motion."""
        repeated = jnp.broadcast_to(condition, (len(h), condition.shape[-1]))
        out = MLP((*self.widths, self.num_outputs), self.last_layer_scale, name="deformation")(
            jnp.concatenate([h, repeated], -1)
        )
        return as_deltas(out, self.axis_gain)
