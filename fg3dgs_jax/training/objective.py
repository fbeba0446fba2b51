"""What a stage row means: which pixels a region is trained on, and the loss of one frame.

A row (see `stages` in configs/default.py) says what is drawn (`fused`, `moving`), what is learnt
(`learn`), on which frames (`frames`), with which losses, and how density is controlled.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fg3dgs_jax.avatar import draw
from fg3dgs_jax.clip.format import LABELS
from fg3dgs_jax.training import losses
from fg3dgs_jax.training.masks import detail_mask, isin, region_labels, region_masks
from fg3dgs_jax.types import REGIONS


class Frozen(NamedTuple):
    """The pretrained nets that losses ask, as functions; None where there are no weights."""

    perceptual: Callable | None = None  # (x, y) [K, side, side, 3] -> [K]: LPIPS
    sync: Callable | None = None  # (frames [B, 5, H, W, 3], first frames [B]) -> []: eq. (16)


@jax.named_scope("lpips")
def perceptual_term(perceptual, key, stage, image, truth, progress):
    """L_LP on random patches once `progress` has passed `lpips.start`; 0 before, at no cost."""
    row = stage.lpips
    if perceptual is None or not stage.losses.lpips or row.start >= 1.0:
        return jnp.zeros(())
    side = min(row.side, *truth.shape[:2])
    return jax.lax.cond(
        progress >= row.start,
        lambda: losses.patch_loss(perceptual, key, image, truth, side, row.count),
        lambda: jnp.zeros(()),
    )


def key_color(config, key):
    """The colour [3] behind a layer in its own stages; key: consumed.

    One that changes from step to step cannot be learnt, so a layer can only match it by being clear
    there; a fixed one is sometimes painted instead and has to be pruned.
    """
    return jnp.array(config.key_color) if config.key_color else jax.random.uniform(key, (3,))


@jax.named_scope("losses")
def region_loss(config, stage, perceptual, key, region, layer, color, batch, alive, step, progress):
    """Eqs. (3) and (13) for one region, with TalkingGaussian's regularisers.

    `layer` is drawn over the key colour `color` [3], with gates where the attention term is wanted.
    """
    weights = stage.losses
    shown, ignored, fill = region_masks(
        region, region_labels(config)[region], batch, config.regions[region].dilate,
        step % stage.hair_every == 0,
    )  # fmt: skip
    truth = jnp.where(shown[..., None] & ~ignored[..., None], batch.image, color)
    image = jnp.where(ignored[..., None], color, layer.image)
    terms = {"l1": losses.l1(image, truth), "d_ssim": losses.d_ssim(image, truth)}
    if weights.detail and region == "face":
        terms["detail"] = losses.masked_mean(jnp.abs(image - truth), detail_mask(batch) & ~ignored)
    if weights.alpha:
        terms["alpha"] = losses.alpha_loss(layer.alpha, fill)
    if weights.motion and layer.deltas is not None and region == "face":
        terms["motion"] = losses.motion_loss(layer.deltas, alive)
    if layer.gates is not None:
        hair = isin(batch.labels, (LABELS["hair"],))
        terms["attention"] = losses.attention_loss(layer.gates, batch.lips_box, hair)
    if weights.lpips:
        terms["lpips"] = perceptual_term(perceptual, key, stage, image, truth, progress)
    return sum(weights[n] * t for n, t in terms.items()), terms


@jax.named_scope("losses")
def fused_loss(stage, perceptual, key, image, batch, progress):
    """Eq. (15) on the whole frame; ours, where `detail` weighs: lips and eyes once more."""
    weights = stage.losses
    terms = {"l1": losses.l1(image, batch.image), "d_ssim": losses.d_ssim(image, batch.image)}
    if weights.detail:
        terms["detail"] = losses.masked_mean(jnp.abs(image - batch.image), detail_mask(batch))
    if weights.lpips:
        terms["lpips"] = perceptual_term(perceptual, key, stage, image, batch.image, progress)
    return sum(weights[n] * t for n, t in terms.items()), terms


def frame_loss(
    config, stage, nets, perceptual, key, step, progress, regions, alive, probes, batches,
    capacities=None,
):  # fmt: skip
    """Loss of one frame a region (`batches` by region; one and the same frame where fused).

    `capacities`: {region: the rasterizer's isect_capacity}.

    Returns (loss, (drawn, filmed) [H, W, 3] for `alignment_loss` where layers are fused or None,
    metrics, radii by region).
    """
    nets = nets if stage.moving and config.moves else None
    metrics, radii = {}, {}
    if stage.fused:
        batch = batches["face"]
        image, layers = draw.draw(
            nets,
            regions,
            alive,
            batch.conditions,
            batch.camera,
            batch.background,
            draw.FrameOptions(
                stage.window > 1 and not stage.sync_paints, probes=probes, capacities=capacities
            ),
        )
        image, watched = image[..., :3], image[..., -3:]
        loss, terms = fused_loss(stage, perceptual, key, image, batch, progress)
        metrics = {**terms, "psnr": losses.psnr(image, batch.image)}
        for r in config.layers:
            metrics |= list_metrics(r, layers[r])
            radii[r] = layers[r].aux.radii
        return loss, (watched, batch.image), metrics, radii
    loss = 0.0
    for r in config.layers:
        batch = batches[r]
        height, width = batch.labels.shape
        key_c, key_r = jax.random.split(jax.random.fold_in(key, REGIONS.index(r)))
        color = key_color(config, key_c)
        conditions = draw.conditions_of(r, nets, regions, batch.conditions)
        options = draw.DrawOptions(
            width,
            height,
            background=color,
            with_gates=bool(nets and r == "face" and stage.losses.attention),
            probe=probes[r],
            capacity=(capacities or {}).get(r),
        )
        net = nets and nets[r]
        layer = draw.draw_layer(net, regions[r], alive[r], conditions, batch.camera, options)
        part, terms = region_loss(
            config, stage, perceptual, key_r, r, layer, color, batch, alive[r], step, progress
        )
        loss = loss + part
        metrics |= {f"{r}/{name}": term for name, term in terms.items()} | list_metrics(r, layer)
        radii[r] = layer.aux.radii
    return loss, None, metrics, radii


@jax.named_scope("alignment")
def alignment_loss(sync, drawn, filmed, starts):
    """L_lip of eq. (16) and its ceiling, the expert's word on the same frames as they were filmed.

    Args:
      sync: `Frozen.sync`.
      drawn, filmed: [B, window, H, W, 3] consecutive frames.
      starts: [B], the first frame of each window.
    """
    return sync(drawn, starts), jax.lax.stop_gradient(sync(filmed, starts))


def list_metrics(region, layer):
    """How many (tile, Gaussian) pairs a layer needed, and whether the GPU's list was shorter."""
    return {f"{region}/isects": layer.aux.n_isects, f"{region}/overflow": layer.aux.overflow}
