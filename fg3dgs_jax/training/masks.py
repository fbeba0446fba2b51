"""Which pixels a region is trained on (eq. (4))."""

import jax
import jax.numpy as jnp

from fg3dgs_jax.clip.format import EYE_LABELS, HEAD_LABELS, LABELS, LIP_LABELS, MOUTH_LABELS
from fg3dgs_jax.training import losses

HAIR_RIM = 0.015  # of the picture's width: where Gaussians reach across the edge of hair


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
