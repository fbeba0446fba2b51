"""LPIPS v0.1 with the AlexNet trunk: how different two pictures look, as a loss and as a metric.

Numbers agree with the original: RGB in [-1, 1], its own shift and scale, five ReLU taps, unit-
normalised over channels, squared difference, learned non-negative channel weights, mean over the
picture, sum over the taps.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

MIN_SIZE = 32  # px; below it the last tap is empty
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
SMALL_MAP = 25  # px, see _convolve
_PRECISION = jax.lax.Precision.HIGHEST  # TF32 and bfloat16 move the third digit

# features, kernel, stride, padding, max-pool before the convolution
_LAYERS = (
    (64, 11, 4, 2, False),
    (192, 5, 1, 2, True),
    (384, 3, 1, 1, True),
    (256, 3, 1, 1, False),
    (256, 3, 1, 1, False),
)


class AlexNetTaps(nn.Module):
    """[B, H, W, 3] normalised pictures -> the five feature maps after ReLU."""

    @nn.compact
    def __call__(self, x):
        taps = []
        for i, (features, kernel, stride, pad, pool) in enumerate(_LAYERS):
            if pool:
                x = nn.max_pool(x, (3, 3), (2, 2))
            conv = nn.Conv(
                features,
                (kernel, kernel),
                stride,
                [(pad, pad)] * 2,
                precision=_PRECISION,
                conv_general_dilated=_convolve,
                name=f"Conv_{i}",
            )
            x = nn.relu(conv(x))
            taps.append(x)
        return taps


def _convolve(x, kernel, strides, padding, **options):
    """`lax.conv_general_dilated`; on a CPU, of maps of a few pixels as one matrix product.

    Patches of 32 px end in maps of 3 x 3 and of 1 x 1 px, for which XLA's CPU convolution takes
    five times as long, and turns every kernel around once more at each gradient.
    """
    small = x.shape[1] * x.shape[2] <= SMALL_MAP and strides == (1, 1)
    if not small or jax.default_backend() != "cpu":
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)
    height, width = x.shape[1:3]
    padded = jnp.pad(x, [(0, 0), *padding, (0, 0)])
    # Taps that only ever meet padding are left out: eight of nine for a map of one pixel.
    taps = [
        (i, j)
        for i, j in np.ndindex(kernel.shape[:2])
        if abs(i - padding[0][0]) < height and abs(j - padding[1][0]) < width
    ]
    columns = [padded[:, i : i + height, j : j + width] for i, j in taps]
    weights = jnp.concatenate([kernel[i, j] for i, j in taps])
    return jnp.einsum("bhwc,cd->bhwd", jnp.concatenate(columns, -1), weights, precision=_PRECISION)


def load(path) -> dict:
    """`lpips_alex_full.npz` -> {"trunk": AlexNetTaps params, "heads": five float32 [C]}.

    Raises:
      ValueError: the file lacks an array or one has another shape.
    """
    trunk, heads, channels = {}, [], 3
    with np.load(path) as arrays:
        for i, (features, kernel, *_) in enumerate(_LAYERS):
            trunk[f"Conv_{i}"] = {
                "kernel": _array(
                    arrays, f"AlexNet_0/Conv_{i}/kernel", (kernel, kernel, channels, features), path
                ),
                "bias": _array(arrays, f"AlexNet_0/Conv_{i}/bias", (features,), path),
            }
            head = _array(arrays, f"NetLinLayer_{i}/Conv_0/kernel", (1, 1, features, 1), path)
            heads.append(head.reshape(-1))
            channels = features
    return {"trunk": trunk, "heads": heads}


def lpips(params, x, y):
    """Distance of two batches of pictures.

    Args:
      params: from `load`.
      x, y: [B, H, W, 3] in [0, 1], H and W at least 32 px.

    Returns:
      [B] float32, 0 for equal pictures; differentiable in x and y.
    """
    if x.shape != y.shape or x.ndim != 4 or x.shape[-1] != 3 or min(x.shape[1:3]) < MIN_SIZE:
        raise ValueError(
            f"pictures have shapes {x.shape} and {y.shape}; expected two equal [B, H, W, 3] of at "
            f"least {MIN_SIZE} px"
        )
    # Each by itself, so that one that needs no gradient, the truth of a loss, costs none.
    taps_x, taps_y = _taps(params, x), _taps(params, y)
    total = jnp.zeros(x.shape[0], jnp.float32)
    for tap_x, tap_y, head in zip(taps_x, taps_y, params["heads"], strict=True):
        squared = jnp.mean((_unit(tap_x) - _unit(tap_y)) ** 2, (1, 2))
        total += jnp.einsum("bc,c->b", squared, head, precision=_PRECISION)
    return total


def _taps(params, pictures):
    normalised = (2.0 * pictures.astype(jnp.float32) - 1.0 - jnp.array(_SHIFT)) / jnp.array(_SCALE)
    return AlexNetTaps().apply({"params": params["trunk"]}, normalised)


def _unit(features):
    squared = jnp.sum(features**2, -1, keepdims=True)
    # The root's slope is infinite at 0, which ReLU makes common; such a pixel is zero whatever it
    # is divided by.
    dead = squared <= 0.0
    norm = jnp.sqrt(jnp.where(dead, 1.0, squared))
    return jnp.where(dead, 0.0, features / (norm + 1e-10))


def _array(arrays, key, shape, path):
    found = arrays[key].shape if key in arrays else "nothing"
    if found != shape:
        raise ValueError(
            f"{path} has {found} under {key!r}; expected {shape}: it is not the LPIPS AlexNet file "
            "of this project"
        )
    return jnp.asarray(arrays[key], jnp.float32)
