"""Which pixels a region is trained on (eq. (4))."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fg3dgs_jax.clip.format import EYE_LABELS, HEAD_LABELS, LABELS, LIP_LABELS, MOUTH_LABELS
from fg3dgs_jax.config import Config
from fg3dgs_jax.types import Array, Batch

HAIR_RIM = 0.015  # of the picture's width: where Gaussians reach across the edge of hair


def region_labels(config: Config) -> dict[str, tuple[int, ...]]:
    """{region: label classes} of the regions with a layer of their own; the face has the rest.

    Eq. (4). In TalkingGaussian's reading the lips belong to the face. With `lips_in` "mouth" they
    belong to the mouth.
    """
    lips = {"face": (), "mouth": LIP_LABELS}[config.lips_in]
    own = {"eyes": EYE_LABELS, "mouth": MOUTH_LABELS + lips}
    own = {r: own[r] for r in config.regions if r != "face"}
    taken = [k for classes in own.values() for k in classes]
    return {"face": tuple(k for k in HEAD_LABELS if k not in taken)} | own


def isin(labels: Array, classes: Sequence[int]) -> Array:
    """Mask [H, W] of some label classes."""
    table = jnp.zeros(256, bool).at[jnp.array(classes)].set(True)
    return table[labels]


def dilate(mask: Array, radius: int) -> Array:
    """A mask grown by `radius` px in each of the four directions and their squares."""
    if radius == 0:
        return mask
    side, grown = 2 * radius + 1, mask.astype(jnp.float32)
    for window in ((side, 1), (1, side)):
        grown = jax.lax.reduce_window(grown, 0.0, jax.lax.max, window, (1, 1), "SAME")
    return grown > 0.0


def box_mask(box: Array, height: int, width: int) -> Array:
    """Boxes [..., 4] (row0, row1, col0, col1), half open -> bool [..., height, width]."""
    row0, row1, col0, col1 = jnp.moveaxis(jnp.asarray(box)[..., None, None], -3, 0)
    rows, cols = jnp.arange(height)[:, None], jnp.arange(width)
    return (rows >= row0) & (rows < row1) & (cols >= col0) & (cols < col1)


class Masks(NamedTuple):
    """The "hole" recipe of TalkingGaussian for one region and frame, each [H, W] bool."""

    shown: Array  # the ground truth is visible there, elsewhere the target is key colour
    ignored: Array  # key colour in both images
    fill: Array  # where the layer should be opaque


def region_masks(
    region: str, classes: Sequence[int], batch: Batch, radius: int, with_hair: Array
) -> Masks:
    """The masks of a region in one frame.

    Args:
      region: "face", "eyes" or "mouth".
      classes: the region's, of `region_labels`.
      batch: the frame.
      radius: px by which the mask is grown.
      with_hair: [] bool, whether the face is shown with its hair.
    """
    height, width = batch.labels.shape
    if region == "face":
        shown = isin(batch.labels, classes)
        hair = isin(batch.labels, (LABELS["hair"],))
        # Without the rim, pixels next to hair would be supervised as empty in six of seven steps,
        # hair as opaque in one.
        rim = dilate(hair, max(2, round(HAIR_RIM * width))) & ~(shown & ~hair)
        return Masks(shown, rim & jnp.logical_not(with_hair), shown)
    boxes = batch.eyes_box if region == "eyes" else batch.lips_box[None]
    # Eyes are grown a little, to reach under the face's rim without a seam. A mouth is not: round a
    # narrow one half of the rest would be lips. What may lie under the lips is left to `fill`.
    shown = dilate(isin(batch.labels, classes), radius)
    box = box_mask(boxes, height, width).any(0)
    return Masks(shown, box & ~shown, box | shown)


def detail_mask(batch: Batch) -> Array:
    """[H, W] bool: the boxes of lips and eyes."""
    boxes = jnp.concatenate([batch.lips_box[None], batch.eyes_box])
    return box_mask(boxes, *batch.labels.shape).any(0)
