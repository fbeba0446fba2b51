"""tau_a of eq. (5): feature windows around a frame -> f_a.

A small convolutional net embeds each of the 8 windows; attention over the 8 embeddings smooths them
into one vector.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from fg3dgs_jax.config import defaults as config_lib
from fg3dgs_jax.models.layers import Linear, activate, small_einsum, uniform_fan_in
from fg3dgs_jax.types import Array

LARGEST = 4.0  # standard deviations; other voices and rooms stay within what training has seen
HE = 6**0.5  # scale of a start that keeps the signal's size through leaky ReLUs


class AudioCode(NamedTuple):
    """The codes of one frame's sound."""

    windows: Array  # [..., 8, dim], one embedding a window, before pooling
    pooled: Array  # [..., dim]: f_a; empty where it was not asked for


class AudioNet(nn.Module):
    """Feature windows [..., A, D], unnormalised, A in 1..16 -> [..., dim], each window by itself.

    Raises:
      ValueError: a window longer than 16 rows, which the four strides do not reduce to one.
    """

    config: config_lib.AudioEncoder

    @nn.compact
    def __call__(self, windows: Float[Array, "*b A D"]) -> Float[Array, "*b C"]:
        """Embeds each window."""
        widths = self.config.widths
        longest = 2 ** len(widths)
        if not 1 <= windows.shape[-2] <= longest:
            raise ValueError(f"audio windows are {windows.shape}; expected [..., 1..{longest}, D]")
        x = windows
        for i, width in enumerate(widths):
            x = activate(_conv(width, 2, HE, f"conv_{i}")(x))
        x = activate(Linear(x.shape[-1], HE, name="hidden")(x[..., 0, :]))
        return Linear(self.config.dim, HE, name="out")(x)


class AudioAttention(nn.Module):
    """Embeddings [..., K, dim] of consecutive windows -> their weighted mean [..., dim]."""

    @nn.compact
    def __call__(self, embeddings: Float[Array, "*b K C"]) -> Float[Array, "*b C"]:
        """Weighs the embeddings and sums them."""
        x = embeddings
        for i, width in enumerate((16, 8, 4, 2, 1)):
            x = activate(_conv(width, 1, 1.0, f"conv_{i}")(x))
        weights = nn.softmax(Linear(embeddings.shape[-2], name="weights")(x[..., 0]))
        return jnp.einsum("...k,...kd->...d", weights, embeddings)


class AudioEncoder(nn.Module):
    """tau_a: windows [..., 8, A, D] -> AudioCode. Eq. (5).

    The channels of pretrained features differ in size by an order of magnitude, so they are first
    standardised with the collection "statistics" (mean 0, scale 1 until `with_statistics` fills it
    in). Whoever attends to the windows directly sets `pool` False and gets no pooled vector.
    """

    config: config_lib.AudioEncoder
    pool: bool = True

    @nn.compact
    def __call__(self, windows: Float[Array, "*b K A D"]) -> AudioCode:
        """Standardises the windows, embeds and pools them."""
        channels = windows.shape[-1:]
        mean = self.variable("statistics", "mean", jnp.zeros, channels).value
        scale = self.variable("statistics", "scale", jnp.ones, channels).value
        windows = jnp.clip((windows - mean) / scale, -LARGEST, LARGEST)
        embeddings = AudioNet(self.config, name="net")(windows)
        pooled = (
            AudioAttention(name="attention")(embeddings) if self.pool else embeddings[..., 0, :0]
        )
        return AudioCode(embeddings, pooled)


def with_statistics(variables: dict[str, Any], features: Array) -> dict[str, Any]:
    """A motion net's `variables`, standardising by `features` [T, A, D] wherever it takes audio."""
    found = variables.get("statistics")
    if found is None:
        return variables
    values = dict(mean=features.mean((0, 1)), scale=jnp.maximum(features.std((0, 1)), 1e-3))
    return {**variables, "statistics": {**found, "audio": values}}


def _conv(width: int, stride: int, scale: float, name: str) -> nn.Conv:
    return nn.Conv(
        width,
        (3,),
        strides=stride,
        padding=1,
        kernel_init=uniform_fan_in(scale),
        conv_general_dilated=_convolve,
        name=name,
    )


def _convolve(x: Array, kernel: Array, strides: Any, padding: Any, **_: Any) -> Array:
    """Convolves x [B, L, C] with kernel [3, C, F] as one product, [B, L', F].

    XLA's CPU convolutions of a few rows take ten times as long.
    """
    (stride,), (pad,), (taps, channels, width) = strides, padding, kernel.shape
    padded = jnp.pad(x, ((0, 0), pad, (0, 0)))
    length = (padded.shape[1] - taps) // stride + 1
    ends = (i + stride * (length - 1) + 1 for i in range(taps))
    columns = [padded[:, i:end:stride] for i, end in enumerate(ends)]
    rows = jnp.concatenate(columns, -1)
    return small_einsum("blc,cf->blf", rows, kernel.reshape(taps * channels, width))
