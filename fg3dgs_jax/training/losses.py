"""What training minimises: the terms of eqs. (3), (13), (15) and regularisers, and their table.

Images are [..., H, W, 3] in [0, 1], masks [..., H, W] of any number type; every mean over a mask
that may be empty is 0 (never NaN) where it is. Pretrained nets come in as arguments.

To add a term, write it as a function of a View, name it in TERMS, and give it a weight of that name
in `config.Losses`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Shaped

from fg3dgs_jax import geometry
from fg3dgs_jax.avatar.draw import Layer
from fg3dgs_jax.clip.format import LABELS
from fg3dgs_jax.config.defaults import Patches
from fg3dgs_jax.training.ffi import ssim as ssim_ffi
from fg3dgs_jax.training.masks import box_mask, detail_mask, isin
from fg3dgs_jax.types import Array, Batch, GaussianDeltas

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
GUIDE_DEPTH = 0.1

Images = Float[Array, "*b h w c"]
Scalar = Float[Array, ""]


def l1(prediction: Images, target: Images) -> Scalar:
    """Mean absolute difference."""
    return jnp.mean(jnp.abs(prediction - target))


def psnr(prediction: Images, target: Images) -> Scalar:
    """Peak signal-to-noise ratio in dB for the range [0, 1]; 100 for equal images."""
    return -10.0 * jnp.log10(jnp.maximum(jnp.mean(jnp.square(prediction - target)), 1e-10))


def masked_mean(values: Array, mask: Array) -> Array:
    """Mean of `values` [..., H, W] or [..., H, W, C] where `mask` [..., H, W] is; 0 if nowhere."""
    mask = jnp.asarray(mask, values.dtype)
    mask = jnp.broadcast_to(mask[..., None] if values.ndim > mask.ndim else mask, values.shape)
    return jnp.sum(values * mask) / jnp.maximum(jnp.sum(mask), 1.0)


def _window():
    x = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    window = np.exp(-0.5 * (x / SSIM_SIGMA) ** 2)
    return [float(w) for w in window / window.sum()]


@jax.custom_vjp
def _blur(images: Array) -> Array:
    """11 x 11 Gaussian blur of [..., H, W, C], zero padded: one pass of shifted adds a direction.

    Faster on CPU than banded matrix products and ten times faster than convolutions. The barriers
    keep XLA from fusing both passes into one loop of 121 taps.
    """
    *batch, height, width, channels = images.shape
    half = SSIM_WINDOW // 2
    rows = images.reshape(*batch, height, width * channels)
    pad = [(0, 0)] * len(batch) + [(half, half), (half * channels, half * channels)]
    rows = jax.lax.optimization_barrier(jnp.pad(rows, pad))
    rows = sum(w * rows[..., i : i + height, :] for i, w in enumerate(_window()))
    rows = jax.lax.optimization_barrier(rows)
    starts = [i * channels for i in range(SSIM_WINDOW)]
    columns = [rows[..., i : i + width * channels] for i in starts]
    rows = sum(w * x for x, w in zip(columns, _window(), strict=True))
    return jnp.reshape(rows, images.shape)


def _blur_forward(images: Array) -> tuple[Array, None]:
    return _blur(images), None


def _blur_backward(_: None, cotangent: Array) -> tuple[Array]:
    return (_blur(cotangent),)  # the window is symmetric and the padding zero: its own transpose


_blur.defvjp(_blur_forward, _blur_backward)


def ssim_map(prediction: Images, target: Images) -> Images:
    """SSIM of every pixel and channel [..., H, W, C]."""
    fields = jnp.concatenate(
        [prediction, target, prediction**2 + target**2, prediction * target], -1
    )
    mean_x, mean_y, squares, product = jnp.split(_blur(fields), 4, -1)
    means = mean_x * mean_y
    mean_squares = mean_x**2 + mean_y**2
    numerator = (2 * means + SSIM_C1) * (2 * (product - means) + SSIM_C2)
    return numerator / ((mean_squares + SSIM_C1) * (squares - mean_squares + SSIM_C2))


def ssim(prediction: Images, target: Images) -> Scalar:
    """Mean SSIM: 11 x 11 Gaussian of sigma 1.5, zero padded, biased moments."""
    return jnp.mean(ssim_map(prediction, target))


def d_ssim(prediction: Images, target: Images) -> Scalar:
    """L_DS of eqs. (3), (13), (15): 1 - SSIM."""
    if ssim_ffi.is_available(prediction, target):
        return jnp.mean(ssim_ffi.distance(prediction, target))
    return 1.0 - ssim(prediction, target)


def alpha_loss(alpha: Float[Array, "*b h w"], inside: Shaped[Array, "*b h w"]) -> Scalar:
    """Mean of (1 - alpha) inside + mean of alpha outside; alpha, inside [..., H, W].

    A layer fills its region and leaves the rest clear.
    """
    inside = jnp.asarray(inside, alpha.dtype)
    return masked_mean(1.0 - alpha, inside) + masked_mean(alpha, 1.0 - inside)


def motion_loss(deltas: GaussianDeltas, alive: Array | None = None) -> Array:
    """Sum over the fields of `deltas` (GaussianDeltas) of mean |field| over `alive` [N] slots."""
    fields = [f for f in jax.tree.leaves(deltas) if f is not None]
    alive = jnp.ones(fields[0].shape[:-1]) if alive is None else alive
    return jnp.asarray(sum(masked_mean(jnp.abs(field), alive) for field in fields))


def guide_loss(deltas: Float[Array, "P 3"], batch: Batch) -> Scalar:
    """Mean distance, in widths of the picture, of the moved guides from where the frame shows them.

    Pictures move a Gaussian only across what it touches; landmarks tell lips, lids and chin where
    to go from the first step on. What they cannot tell, motion in depth, is kept small.
    `deltas` [P, 3] metres: the motion net's at `batch.guides`.
    """
    pixels = geometry.project_points(batch.guides + deltas, batch.camera)
    distance = jnp.mean(jnp.abs(pixels - batch.guide_pixels))
    depth = batch.camera.fx * jnp.mean(jnp.abs(deltas[:, 2]))  # the head is about 1 m away
    return (distance + GUIDE_DEPTH * depth) / batch.labels.shape[-1]


def attention_loss(
    gates: Float[Array, "*b h w 2"],
    lips_box: Int[Array, "*b 4"],
    hair: Shaped[Array, "*b h w"],
) -> Scalar:
    """Keeps expressions from moving the lips, and both conditions from moving hair.

    Args:
      gates: rendered gates [..., H, W, 2]: audio, expression.
      lips_box: [..., 4].
      hair: mask [..., H, W].
    """
    lips = box_mask(lips_box, *gates.shape[-3:-1])
    on_hair = masked_mean(gates[..., 0], hair) + masked_mean(gates[..., 1], hair)
    return masked_mean(gates[..., 1], lips) + on_hair


def patch_corners(key: Array, height: int, width: int, side: int, count: int) -> Int[Array, "K 2"]:
    """Row and column [K, 2] of different cells of a grid at a random offset; K = min(count, cells).

    The grid holds as many whole patches of side `side` as fit at any offset, so K does not depend
    on chance.

    Raises:
      ValueError: a patch that does not fit in the image.
    """
    if not 0 < side <= min(height, width):
        raise ValueError(
            f"patch side is {side}; expected 1..{min(height, width)} ({height} x {width} image)"
        )
    rows, cols = (max(1, (n - side + 1) // side) for n in (height, width))
    key_row, key_col, key_cells = jax.random.split(key, 3)
    offset = jnp.stack(
        [
            jax.random.randint(key_row, (), 0, height - rows * side + 1),
            jax.random.randint(key_col, (), 0, width - cols * side + 1),
        ]
    )
    cells = jax.random.permutation(key_cells, rows * cols)[:count]
    return offset + side * jnp.stack([cells // cols, cells % cols], -1)


def gather_patches(
    image: Float[Array, "h w c"], corners: Int[Array, "K 2"], side: int
) -> Float[Array, "K side side c"]:
    """[H, W, C], [K, 2] -> [K, side, side, C]."""
    size = (side, side, image.shape[-1])
    return jax.vmap(lambda c: jax.lax.dynamic_slice(image, (c[0], c[1], 0), size))(corners)


def patch_loss(
    perceptual: Callable[[Array, Array], Array],
    key: Array,
    prediction: Float[Array, "h w 3"],
    target: Float[Array, "h w 3"],
    patches: Patches,
) -> Scalar:
    """L_LP of eq. (15): mean of a perceptual distance over random patches.

    `perceptual(x, y) -> [K]` takes [K, side, side, 3] in [0, 1]; both images [H, W, 3] are cut at
    the same places. LPIPS-Alex needs a side of 32 or more.
    """
    height, width = target.shape[:2]
    side = min(patches.side, height, width)
    corners = patch_corners(key, height, width, side, patches.count)
    cut = gather_patches(prediction, corners, side), gather_patches(target, corners, side)
    return jnp.mean(perceptual(*cut))


class View(NamedTuple):
    """What a term may look at: one region's layer over the key colour, or the whole frame.

    Fields that a view has nothing for are None.
    """

    image: Array  # [H, W, 3], drawn
    truth: Array  # [H, W, 3], ground truth
    batch: Batch
    key: Array  # consumed by the one term that draws patches
    progress: Array  # share of the stage done
    patches: Patches
    perceptual: Callable[[Array, Array], Array] | None  # LPIPS: [K, side, side, 3] twice -> [K]
    late: bool = True  # `patches.start` has come: the host decides it, a program has no branch
    region: str | None = None  # None: the whole frame
    layer: Layer | None = None
    alive: Array | None = None  # [N] bool
    ignored: Array | None = None  # [H, W] bool: equal in image and truth, whatever was drawn
    fill: Array | None = None  # [H, W] bool: where the layer should be opaque


def detail(view: View) -> Array | None:
    """L1 in the boxes of lips and eyes once more (ours), for the face's layer and whole frames."""
    if view.region not in (None, "face"):
        return None
    mask = detail_mask(view.batch)
    mask = mask if view.ignored is None else mask & ~view.ignored
    return masked_mean(jnp.abs(view.image - view.truth), mask)


def alpha(view: View) -> Array | None:
    """A layer fills its region and leaves the rest clear."""
    if view.layer is None or view.fill is None:
        return None
    return alpha_loss(view.layer.alpha, view.fill)


def small_motion(view: View) -> Array | None:
    """The face's Gaussians move no more than they must."""
    if view.region != "face" or view.layer is None or view.layer.deltas is None:
        return None
    return motion_loss(view.layer.deltas, view.alive)


def attention(view: View) -> Array | None:
    """Expressions leave the lips alone, both conditions the hair; where gates were drawn."""
    if view.layer is None or view.layer.gates is None:
        return None
    hair = isin(view.batch.labels, (LABELS["hair"],))
    return attention_loss(view.layer.gates, view.batch.lips_box, hair)


@jax.named_scope("lpips")
def late_lpips(view: View) -> Array | None:
    """L_LP on random patches from `patches.start` on; 0 before, and nothing of it is compiled."""
    network, patches = view.perceptual, view.patches
    if network is None or patches.start >= 1.0:
        return None
    if not view.late:
        return jnp.zeros(())
    return patch_loss(network, view.key, view.image, view.truth, patches)


# name in `config.Losses` -> View -> scalar, or None where the view has nothing for it. Terms of a
# whole step, which see several frames, are in `objective.STEP_TERMS`.
TERMS: dict[str, Callable[[View], Array | None]] = {
    "l1": lambda view: l1(view.image, view.truth),  # eqs. (3), (13), (15)
    "d_ssim": lambda view: d_ssim(view.image, view.truth),  # eqs. (3), (13), (15)
    "detail": detail,
    "alpha": alpha,
    "motion": small_motion,
    "attention": attention,
    "lpips": late_lpips,  # eq. (15)
}
