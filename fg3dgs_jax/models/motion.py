"""The head: each region's Gaussians (eq. 2), its motion net (eqs. 5-12), and how the two add up."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from fg3dgs_jax.models.audio_encoder import AudioEncoder
from fg3dgs_jax.models.cross_modal_gating import AudioTokens, CrossModalGating, ExpressionTokens
from fg3dgs_jax.models.expression_encoder import ExpressionEncoder
from fg3dgs_jax.models.hash_encoding import TriPlaneHashEncoding
from fg3dgs_jax.models.layers import MLP
from fg3dgs_jax.models.region_deformation import METRES, ConcatDeformation, RegionDeformation
from fg3dgs_jax.types import REGIONS, Conditions, Gates, GaussianDeltas

# Landmarks that a mouth may follow: corners of the outer and inner outline, middles of the inner.
LIPS = (61, 291, 78, 308, 13, 14)


def default_model_config() -> ml_collections.ConfigDict:
    """Every size of the motion nets; lengths in metres, resolutions in cells a side."""
    encoding = dict(levels=12, bound=0.15, log2_table_size=17)
    gated = dict(
        motion="gated",  # "gated": eqs. (10)-(12); "concat": the ablation without FAM
        gate_from="spatial",  # or "condition", the literal eq. (10)
        d_model=64,
        heads=2,
        ffn_width=128,
        gate_width=16,
        motion_width=32,
        last_layer_scale=0.1,
        num_outputs=3,  # 10: turning and scaling as well as moving (Fig. 6)
        concat_widths=(32, 32),
    )
    return ml_collections.ConfigDict(
        dict(
            audio=dict(dim=32, widths=(32, 32, 64, 64)),
            expression=dict(hidden=16),
            face=dict(
                motion="gated",  # eqs. (6)-(8); "concat": the ablation of one set and one MLP
                encoding=dict(base_resolution=16.0, desired_resolution=38.4, **encoding),
                audio_gate_width=32,
                expression_gate_width=16,
                expression_gate_offset=0.3,
                widths=(64, 64),
                num_outputs=10,
                last_layer_scale=1.0,
            ),
            eyes=dict(
                encoding=dict(base_resolution=64.0, desired_resolution=57.6, **encoding),
                axis_gain=(1.0, 1.0, 1.0),
                **gated,
            ),
            mouth=dict(
                encoding=dict(base_resolution=64.0, desired_resolution=57.6, **encoding),
                axis_gain=(0.2, 1.0, 0.2),  # the inside of a mouth moves mostly up and down
                follows_lips=False,
                **gated,
            ),
        )
    )


class FaceMotion(nn.Module):
    """means [N, 3], Conditions of one frame -> (GaussianDeltas, Gates); eqs. (5)-(8), or one MLP of
    everything side by side.
    """

    config: ml_collections.FrozenConfigDict

    @nn.compact
    def __call__(self, means, conditions: Conditions) -> tuple[GaussianDeltas, Gates]:
        face = dict(self.config.face)
        h = TriPlaneHashEncoding(**face.pop("encoding"), name="encoding")(means)
        f_a = AudioEncoder(**self.config.audio, name="audio")(conditions.audio).pooled  # eq. (5)
        f_e = ExpressionEncoder(**self.config.expression, name="expression")(
            conditions.expression
        )  # eq. (5)
        if face.pop("motion", "gated") == "gated":
            return RegionDeformation(**face, name="motion")(h, f_a, f_e)
        deform = ConcatDeformation(face["widths"], face["num_outputs"], name="motion")
        everywhere = jnp.ones(len(means))
        return deform(h, jnp.concatenate([f_a, f_e])), Gates(everywhere, everywhere)


class HighFrequencyMotion(nn.Module):
    """Mouth (audio only) or eyes (expression only); eqs. (5), (9)-(12).

    Ours, after InsTaG: where `follows_lips`, one more token of the mouth tells how the face's net
    has moved the lips (`Conditions.lips`), so that teeth and jaw go with them. The points in
    question are variables of the net, "statistics" (see `lip_motion`).
    """

    region: str
    config: ml_collections.FrozenConfigDict

    @nn.compact
    def __call__(self, means, conditions: Conditions) -> tuple[GaussianDeltas, Gates]:
        options = dict(self.config[self.region])
        kind, widths = options.pop("motion"), options.pop("concat_widths")
        follows_lips = options.pop("follows_lips", False)
        h = TriPlaneHashEncoding(**options.pop("encoding"), name="encoding")(means)  # eq. (9)
        if self.region == "mouth":
            pool = kind == "concat" or options["gate_from"] == "condition"
            encoder = AudioEncoder(**self.config.audio, pool=pool, name="audio")
            code = encoder(conditions.audio)  # eq. (5)
            pooled, values, tokens = code.pooled, code.windows, AudioTokens
        else:
            pooled = ExpressionEncoder(**self.config.expression, name="expression")(
                conditions.expression
            )  # eq. (5)
            values, tokens = pooled, ExpressionTokens
        if kind == "concat":
            deform = ConcatDeformation(
                widths, 3, options["axis_gain"], options["last_layer_scale"], name="motion"
            )
            deltas, gate = deform(h, pooled), jnp.ones(len(means))
        else:
            c = tokens(options["d_model"], name="tokens")(values)
            if follows_lips:
                self.variable("statistics", "lips", jnp.zeros, (len(LIPS), 3))
                lips = conditions.lips if conditions.lips is not None else jnp.zeros(3 * len(LIPS))
                follow = MLP((32, options["d_model"]), name="follow")(lips)
                c = jnp.concatenate([c, follow[None]])
            deltas, gate = CrossModalGating(**options, name="motion")(h, c, pooled)
        silent = jnp.zeros_like(gate)
        gates = Gates(gate, silent) if self.region == "mouth" else Gates(silent, gate)
        return deltas, gates


def lip_motion(face, face_variables, mouth_variables, conditions):
    """`conditions` for a mouth that follows the lips, as the face's net moves them; as they are for
    one that does not. No gradient to the face.
    """
    lips = mouth_variables.get("statistics", {}).get("lips")
    if lips is None:
        return conditions
    deltas, _ = face.apply(face_variables, lips, conditions)
    moved = jax.lax.stop_gradient(deltas.means).reshape(-1) / METRES
    return conditions._replace(lips=moved)


def make_motion_net(region: str, config=None) -> nn.Module:
    """The motion net of "face", "eyes" or "mouth" (`config` None: `default_model_config()`).

    `net.init(key, means, conditions)` and `net.apply(variables, means, conditions)` take means [N,
    3] and the Conditions of one frame (audio [8, A, D], expression [E]) and return (GaussianDeltas,
    Gates). Batches of frames: `jax.vmap` over the conditions; what depends on the means alone
    (encoding, gates, queries) is then still computed once.

    Raises:
      ValueError: an unknown region, or an unknown kind of motion in the config.
    """
    if region not in REGIONS:
        raise ValueError(f"region is {region!r}; expected one of {REGIONS}")
    config = ml_collections.FrozenConfigDict(default_model_config() if config is None else config)
    kind = config[region].get("motion", "gated")
    if kind not in ("gated", "concat"):
        raise ValueError(f'{region}.motion is {kind!r}; expected "gated" or "concat"')
    return FaceMotion(config) if region == "face" else HighFrequencyMotion(region, config)
