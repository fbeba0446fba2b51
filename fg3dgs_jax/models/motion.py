"""The head: each region's Gaussians (eq. 2), its motion net (eqs. 5-12), and how the two add up."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from fg3dgs_jax.config.defaults import GateFrom, Model, Motion
from fg3dgs_jax.models.audio_encoder import AudioEncoder
from fg3dgs_jax.models.cross_modal_gating import AudioTokens, CrossModalGating, ExpressionTokens
from fg3dgs_jax.models.expression_encoder import ExpressionEncoder
from fg3dgs_jax.models.hash_encoding import TriPlaneHashEncoding
from fg3dgs_jax.models.layers import MLP
from fg3dgs_jax.models.region_deformation import (
    METRES,
    MOVES,
    MOVES_TURNS_SCALES,
    ConcatDeformation,
    RegionDeformation,
)
from fg3dgs_jax.types import REGIONS, Array, Conditions, Gates, GaussianDeltas

# Landmarks that a mouth may follow: corners of the outer and inner outline, middles of the inner.
LIPS = (61, 291, 78, 308, 13, 14)
CONCAT_WIDTHS = (32, 32)  # hidden layers of the ablation without FAM: TalkingGaussian's mouth


class FaceMotion(nn.Module):
    """means [N, 3], Conditions of one frame -> (GaussianDeltas, Gates); eqs. (5)-(8).

    Or one MLP of everything side by side.
    """

    config: Model

    @nn.compact
    def __call__(
        self, means: Float[Array, "N 3"], conditions: Conditions
    ) -> tuple[GaussianDeltas, Gates]:
        """Moves, turns and scales the Gaussians of the face."""
        face = self.config.face
        h = TriPlaneHashEncoding(face.encoding, name="encoding")(means)
        f_a = AudioEncoder(self.config.audio, name="audio")(conditions.audio).pooled  # eq. (5)
        encode = ExpressionEncoder(self.config.expression, name="expression")
        f_e = encode(conditions.expression)  # eq. (5)
        if face.motion == Motion.GATED:
            return RegionDeformation(face, name="motion")(h, f_a, f_e)
        deform = ConcatDeformation(face.widths, MOVES_TURNS_SCALES, name="motion")
        everywhere = jnp.ones(len(means))
        return deform(h, jnp.concatenate([f_a, f_e])), Gates(everywhere, everywhere)


class HighFrequencyMotion(nn.Module):
    """Mouth (audio only) or eyes (expression only); eqs. (5), (9)-(12).

    Ours, after InsTaG: where `follows_lips`, one more token of the mouth tells how the face's net
    has moved the lips (`Conditions.lips`), so that teeth and jaw go with them. The points in
    question are variables of the net, "statistics" (see `lip_motion`).
    """

    region: str
    config: Model

    @nn.compact
    def __call__(
        self, means: Float[Array, "N 3"], conditions: Conditions
    ) -> tuple[GaussianDeltas, Gates]:
        """Moves the Gaussians of the region."""
        region = self.config.mouth if self.region == "mouth" else self.config.eyes
        concat = region.motion == Motion.CONCAT
        h = TriPlaneHashEncoding(region.encoding, name="encoding")(means)  # eq. (9)
        if self.region == "mouth":
            pool = concat or region.gate_from == GateFrom.CONDITION
            encoder = AudioEncoder(self.config.audio, pool=pool, name="audio")
            code = encoder(conditions.audio)  # eq. (5)
            pooled, values, tokens = code.pooled, code.windows, AudioTokens
        else:
            encode = ExpressionEncoder(self.config.expression, name="expression")
            pooled = values = encode(conditions.expression)  # eq. (5)
            tokens = ExpressionTokens
        if concat:
            outputs, gain, scale = MOVES, region.axis_gain, region.last_layer_scale
            deform = ConcatDeformation(CONCAT_WIDTHS, outputs, gain, scale, name="motion")
            deltas, gate = deform(h, pooled), jnp.ones(len(means))
        else:
            c = tokens(region.d_model, name="tokens")(values)
            if region.follows_lips:
                self.variable("statistics", "lips", jnp.zeros, (len(LIPS), 3))
                lips = conditions.lips if conditions.lips is not None else jnp.zeros(3 * len(LIPS))
                follow = MLP((32, region.d_model), name="follow")(lips)
                c = jnp.concatenate([c, follow[None]])
            deltas, gate = CrossModalGating(region, name="motion")(h, c, pooled)
        silent = jnp.zeros_like(gate)
        gates = Gates(gate, silent) if self.region == "mouth" else Gates(silent, gate)
        return deltas, gates


def lip_motion(
    face: nn.Module, face_variables: Any, mouth_variables: Any, conditions: Conditions
) -> Conditions:
    """`conditions` for a mouth that follows the lips as the face's net moves them.

    They stay as they are for a mouth that does not. No gradient to the face.
    """
    lips = mouth_variables.get("statistics", {}).get("lips")
    if lips is None:
        return conditions
    deltas, _ = face.apply(face_variables, lips, conditions)
    moved = jax.lax.stop_gradient(deltas.means).reshape(-1) / METRES
    return conditions._replace(lips=moved)


def make_motion_net(region: str, config: Model) -> nn.Module:
    """The motion net of "face", "eyes" or "mouth".

    `net.init(key, means, conditions)` and `net.apply(variables, means, conditions)` take means [N,
    3] and the Conditions of one frame (audio [8, A, D], expression [E]) and return (GaussianDeltas,
    Gates). Batches of frames: `jax.vmap` over the conditions; what depends on the means alone
    (encoding, gates, queries) is then still computed once.

    Raises:
      ValueError: an unknown region.
    """
    if region not in REGIONS:
        raise ValueError(f"region is {region!r}; expected one of {REGIONS}")
    return FaceMotion(config) if region == "face" else HighFrequencyMotion(region, config)
