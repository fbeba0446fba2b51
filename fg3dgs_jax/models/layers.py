"""Small layers that the networks share, started as PyTorch does: the learning rates assume it."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fg3dgs_jax.types import Array

SLOPE = 0.02  # below zero, as in TalkingGaussian's audio network
FEW = 16  # rows: a product of no more is not worth a kernel of its own


def uniform_fan_in(scale: float = 1.0) -> Callable[..., Array]:
    """Kernel initializer U(+-scale / sqrt(fan_in)), PyTorch's default at scale 1."""
    return nn.initializers.variance_scaling(scale * scale / 3, "fan_in", "uniform")


def uniform_bias(fan_in: int) -> Callable[..., Array]:
    """Bias initializer U(+-1 / sqrt(fan_in)); a bias's shape alone does not tell the fan-in."""
    bound = fan_in**-0.5
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)


def activate(x: Array) -> Array:
    """Leaky ReLU. Behind a plain one, a net that moves few Gaussians can die in its first steps."""
    return nn.leaky_relu(x, SLOPE)


@jax.custom_vjp
def product(x: Array, kernel: Array) -> Array:
    """X [..., C] times kernel [C, M].

    The gradient of the kernel sums over thousands of rows. Left to fuse it with what is around it,
    XLA's CPU compiler writes transposed copies that take five times as long as the product.
    """
    return x @ kernel


def _product_forward(x: Array, kernel: Array) -> Any:
    return x @ kernel, (x, kernel)


def _product_backward(residuals: Any, v: Array) -> Any:
    x, v = jax.lax.optimization_barrier((residuals[0], v))
    rows = tuple(range(x.ndim - 1))
    return v @ residuals[1].T, jax.lax.dot_general(x, v, ((rows, rows), ((), ())))


product.defvjp(_product_forward, _product_backward)


def small_einsum(subscripts: str, a: Array, b: Array) -> Array:
    """`jnp.einsum` of two small arrays.

    On a GPU it is a sum over their spread product. XLA fuses that with what is around it, where a
    matrix product would be a kernel of its own, and transposing for it another.
    """
    if jax.default_backend() == "cpu":
        return jnp.einsum(subscripts, a, b)
    operands, kept = subscripts.split("->")
    letters = kept + "".join(sorted(set(operands) - set(kept) - {","}))

    def spread(x: Array, axes: str) -> Array:
        x = x.transpose([axes.index(letter) for letter in letters if letter in axes])
        return jnp.expand_dims(x, [i for i, letter in enumerate(letters) if letter not in axes])

    x, y = (spread(x, axes) for x, axes in zip((a, b), operands.split(","), strict=True))
    return jnp.sum(x * y, tuple(range(len(kept), len(letters))))


def multiply(x: Array, kernel: Array) -> Array:
    """X [..., C] times kernel [C, M], in the way that suits the number of rows."""
    rows = x.reshape(-1, x.shape[-1])
    if len(rows) > FEW or jax.default_backend() == "cpu":
        return product(x, kernel)
    return small_einsum("rc,cm->rm", rows, kernel).reshape(*x.shape[:-1], -1)


def _dot_general(x: Array, kernel: Array, *_: Any, **__: Any) -> Array:  # as nn.Dense calls it
    return multiply(x, kernel)


class Linear(nn.Module):
    """Dense layer [..., C] -> [..., features] with bias; at `scale` 1 PyTorch's default start."""

    features: int
    scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Multiplies and adds the bias."""
        bias_init = uniform_bias(x.shape[-1])
        return nn.Dense(
            self.features,
            kernel_init=uniform_fan_in(self.scale),
            bias_init=bias_init,
            dot_general=_dot_general,
        )(x)


class MLP(nn.Module):
    """Bias-free linear layers, `activate` between them, none after the last; [..., widths[-1]].

    `gain` [C]: what the channels of the input [..., C] are multiplied by. It goes into the first
    layer's weights: that takes C x widths[0] products instead of N x C.
    """

    widths: Sequence[int]
    last_layer_scale: float = 1.0  # < 1 starts the output closer to zero

    @nn.compact
    def __call__(self, x: Array, gain: Array | None = None) -> Array:
        """Applies the layers."""

        def scaled(x: Array, kernel: Array, *_: Any, **__: Any) -> Array:
            return multiply(x, kernel if gain is None else gain[:, None] * kernel)

        for i, width in enumerate(self.widths):
            last = i == len(self.widths) - 1
            init = uniform_fan_in(self.last_layer_scale if last else 1.0)
            dot_general = scaled if i == 0 and gain is not None else _dot_general
            x = nn.Dense(
                width, use_bias=False, kernel_init=init, dot_general=dot_general, name=f"layer_{i}"
            )(x)
            x = x if last else activate(x)
        return x


class FeedForward(nn.Module):
    """Linear to `hidden`, `activate`, Linear back; [..., C] -> [..., C]."""

    hidden: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Applies both layers."""
        return Linear(x.shape[-1], name="down")(activate(Linear(self.hidden, name="up")(x)))
