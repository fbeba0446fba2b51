"""What a stage row means: which pixels a region is trained on, and the loss of one frame.

A row (see `stages` in configs/default.py) says what is drawn (`fused`, `moving`), what is learnt
(`learn`), on which frames (`frames`), with which losses, and how density is controlled.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax.avatar import draw
from fg3dgs_jax.clip.processed import (
    EYE_LABELS,
    GUIDES,
    HEAD_LABELS,
    INNER_LIPS,
    LABELS,
    LEFT_EYE,
    LIP_LABELS,
    MOUTH_LABELS,
    OUTER_LIPS,
    RIGHT_EYE,
)
from fg3dgs_jax.training import losses
from fg3dgs_jax.types import REGIONS

HAIR_RIM = 0.015  # of the picture's width: where Gaussians reach across the edge of hair


class Frozen(NamedTuple):
    """The pretrained nets that losses ask, as functions; None where there are no weights."""

    perceptual: Callable | None = None  # (x, y) [K, side, side, 3] -> [K]: LPIPS
    sync: Callable | None = None  # (frames [B, 5, H, W, 3], first frames [B]) -> []: eq. (16)


def region_labels(config):
    """{region: label classes} of the regions with a layer of their own; the face has the rest.

    Eq. (4). In TalkingGaussian's reading the lips belong to the face; `lips_in` "mouth" is the
    other one.
    """
    lips = {"face": (), "mouth": LIP_LABELS}[config.lips_in]
    own = {"eyes": EYE_LABELS, "mouth": MOUTH_LABELS + lips}
    own = {r: own[r] for r in config.layers if r != "face"}
    taken = sum(own.values(), ())
    return {"face": tuple(k for k in HEAD_LABELS if k not in taken)} | own


def isin(labels, classes):
    """Mask [H, W] of some label classes."""
    table = jnp.zeros(256, bool).at[jnp.array(classes)].set(True)
    return table[labels]


def dilate(mask, radius: int):
    """A mask grown by `radius` px in each of the four directions and their squares."""
    if radius == 0:
        return mask
    side, grown = 2 * radius + 1, mask.astype(jnp.float32)
    for window in ((side, 1), (1, side)):
        grown = jax.lax.reduce_window(grown, 0.0, jax.lax.max, window, (1, 1), "SAME")
    return grown > 0.0


def region_masks(region: str, classes, batch, radius: int, with_hair):
    """(shown, ignored, fill), each [H, W] bool: the "hole" recipe of TalkingGaussian for a region.

    `classes`: the region's, of `region_labels`.

    `shown`: the truth is visible there, elsewhere the target is key colour. `ignored`: key colour
    in both images. `fill`: where the layer should be opaque.
    """
    height, width = batch.labels.shape
    if region == "face":
        shown = isin(batch.labels, classes)
        hair = isin(batch.labels, (LABELS["hair"],))
        # With a rim: what lies beside hair is not to be clear seven times as often as hair opaque.
        rim = dilate(hair, max(2, round(HAIR_RIM * width))) & ~(shown & ~hair)
        return shown, rim & ~with_hair, shown
    boxes = batch.eyes_box if region == "eyes" else batch.lips_box[None]
    # Eyes are grown a little, to reach under the face's rim without a seam. A mouth is not: round a
    # narrow one half of the rest would be lips. What may lie under the lips is left to `fill`.
    shown = dilate(isin(batch.labels, classes), radius)
    box = losses.box_mask(boxes, height, width).any(0)
    return shown, box & ~shown, box | shown


def detail_mask(batch):
    """[H, W] bool: the boxes round lips and eyes."""
    boxes = jnp.concatenate([batch.lips_box[None], batch.eyes_box])
    return losses.box_mask(boxes, *batch.labels.shape).any(0)


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
            nets, regions, alive, batch.conditions, batch.camera, batch.background,
            twice=stage.window > 1 and not stage.sync_paints, probes=probes, capacities=capacities,
        )  # fmt: skip
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
        layer = draw.draw_layer(
            nets and nets[r], regions[r], alive[r],
            draw.conditions_of(r, nets, regions, batch.conditions), batch.camera,
            width=width, height=height, background=color, probe=probes[r],
            capacity=(capacities or {}).get(r),
            with_gates=bool(nets and r == "face" and stage.losses.attention),
        )  # fmt: skip
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


def guided(config):
    """{region: which rows of `data.dataset.GUIDES` its net is led by}."""
    if config.lips_in == "face":
        return {"face": slice(None)}
    lips = len(OUTER_LIPS + INNER_LIPS)
    return {"face": slice(lips, None), "mouth": slice(lips)}


def guides_loss(net, motion, rows, frames, lid_conditions):
    """`losses.guide_loss` of a region's net over several frames (a Batch of [B]), whose lids follow
    conditions of their own; both from `batches.guide_frames`.
    """
    rows = np.arange(len(GUIDES))[rows]
    lid = np.isin(np.array(GUIDES)[rows], RIGHT_EYE + LEFT_EYE)
    groups = [rows[~lid], rows[lid]]
    order = np.concatenate(groups)
    guides = frames.guides[0]  # the same in all frames: their encoding is computed once

    def one(batch, lid_conditions):
        deltas = [
            net.apply(motion, guides[group], conditions)[0].means
            for group, conditions in zip(groups, (batch.conditions, lid_conditions), strict=True)
            if len(group)
        ]
        told = batch._replace(guides=guides[order], guide_pixels=batch.guide_pixels[order])
        return losses.guide_loss(jnp.concatenate(deltas), told)

    return jnp.mean(jax.vmap(one)(frames, lid_conditions))
