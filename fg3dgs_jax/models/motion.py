"""The head: each region's Gaussians (eq. 2), its motion net (eqs. 5-12), and how the two add up."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from scipy.spatial import cKDTree

from fg3dgs_jax.models.audio_encoder import AudioEncoder
from fg3dgs_jax.models.cross_modal_gating import AudioTokens, CrossModalGating, ExpressionTokens
from fg3dgs_jax.models.expression_encoder import ExpressionEncoder
from fg3dgs_jax.models.hash_encoding import TriPlaneHashEncoding
from fg3dgs_jax.models.layers import MLP
from fg3dgs_jax.models.region_deformation import METRES, ConcatDeformation, RegionDeformation
from fg3dgs_jax.types import REGIONS, Array, Conditions, Gates, GaussianDeltas, Gaussians

SH_BAND_0 = 0.28209479177387814  # the constant spherical harmonic: colour = SH_BAND_0 * sh[0] + 0.5
INITIAL_OPACITY = 0.1
# Landmarks that a mouth may follow: corners of the outer and inner outline, middles of the inner.
LIPS = (61, 291, 78, 308, 13, 14)


class Drawable(NamedTuple):
    """Gaussians as the rasterizer takes them."""

    means: Array  # [N, 3] metres
    quats: Array  # [N, 4] wxyz, not normalised
    scales: Array  # [N, 3] metres
    opacities: Array  # [N] in [0, 1]
    sh: Array  # [N, K, 3]


def activate(gaussians: Gaussians, deltas: GaussianDeltas | None = None, alive=None) -> Drawable:
    """G + Delta G, made drawable; slots outside `alive` [N] bool (None: all) get opacity 0."""
    means, quats, raw_scales = gaussians.means, gaussians.quats, gaussians.raw_scales
    if deltas is not None:
        means = means + deltas.means
        quats = quats if deltas.quats is None else quats + deltas.quats
        raw_scales = raw_scales if deltas.raw_scales is None else raw_scales + deltas.raw_scales
    opacities = jax.nn.sigmoid(gaussians.logit_opacities)
    if alive is not None:
        opacities = jnp.where(alive, opacities, 0.0)
    return Drawable(means, quats, jax.nn.softplus(raw_scales), opacities, gaussians.sh)


def init_gaussians(key, capacity, num, center=(0.0, 0.0, 0.0), half_extent=0.1, sh_degree=2):
    """`num` grey Gaussians, uniform in a box, in arrays of `capacity` slots.

    Args:
      center: [3] metres, or [M, 3] for M boxes that share the points evenly (two eyes).
      half_extent: metres, a number or [3].

    Returns:
      (Gaussians, alive [capacity] bool).
    """
    centers = jnp.atleast_2d(jnp.asarray(center, jnp.float32))
    offsets = jax.random.uniform(key, (num, 3), minval=-1.0) * jnp.asarray(half_extent, jnp.float32)
    points = centers[jnp.arange(num) % len(centers)] + offsets
    return init_gaussians_from_points(points, jnp.full((num, 3), 0.5), capacity, sh_degree)


def init_gaussians_from_points(points, colors, capacity, sh_degree=2):
    """A Gaussian at each of `points` [P, 3] metres, of `colors` [P, 3] in [0, 1].

    Sized by the mean distance d to the three nearest others: raw scale log d, so scale ln(1 + d).
    Returns (Gaussians, alive [capacity] bool).

    Raises:
      ValueError: no points, more points than slots, or a degree outside 0..3.
    """
    points, colors = np.asarray(points, np.float32), np.asarray(colors, np.float32)
    num = len(points)
    if not 0 < num <= capacity:
        raise ValueError(
            f"{num} points for {capacity} slots; expected between 1 and the number of slots"
        )
    if sh_degree not in (0, 1, 2, 3):
        raise ValueError(f"sh_degree is {sh_degree}; expected 0, 1, 2 or 3")
    # Slots that are not alive hold harmless values: the cloud's centre, the median size.
    raw_scales = np.log(_neighbour_distances(points))
    means = _fill(points, capacity, points.mean(0))
    sh = np.zeros((capacity, (sh_degree + 1) ** 2, 3), np.float32)
    sh[:num, 0] = (colors - 0.5) / SH_BAND_0
    gaussians = Gaussians(
        means=jnp.asarray(means),
        quats=jnp.tile(jnp.array([1.0, 0.0, 0.0, 0.0]), (capacity, 1)),
        raw_scales=jnp.asarray(
            np.repeat(_fill(raw_scales[:, None], capacity, np.median(raw_scales)), 3, 1)
        ),
        logit_opacities=jnp.full((capacity,), jax.scipy.special.logit(INITIAL_OPACITY)),
        sh=jnp.asarray(sh),
    )
    return gaussians, jnp.arange(capacity) < num


def _neighbour_distances(points, neighbours=3):
    """Mean distance [P] to the nearest others, 0.3 mm or more; 1 cm for a lone point."""
    count = min(neighbours, len(points) - 1)
    if count == 0:
        return np.full(1, 0.01, np.float32)
    distances, _ = cKDTree(points).query(points, k=count + 1)
    return np.maximum(distances[:, 1:].mean(1), 3e-4).astype(np.float32)


def _fill(rows, capacity, value):
    out = np.empty((capacity, *rows.shape[1:]), np.float32)
    out[: len(rows)], out[len(rows) :] = rows, value
    return out


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
