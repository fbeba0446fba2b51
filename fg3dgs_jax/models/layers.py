"""Small layers that the networks share, started as PyTorch does: the learning rates assume it."""

from collections.abc import Sequence

import flax.linen as nn
import jax


def uniform_fan_in(scale: float = 1.0):
    """Kernel initializer U(+-scale / sqrt(fan_in)), PyTorch's default at scale 1."""
    return nn.initializers.variance_scaling(scale * scale / 3, "fan_in", "uniform")


def uniform_bias(fan_in: int):
    """Bias initializer U(+-1 / sqrt(fan_in)); a bias's shape alone does not tell the fan-in."""
    bound = fan_in**-0.5
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)


class Linear(nn.Module):
    """Dense layer [..., C] -> [..., features] with bias, PyTorch's default start."""

    features: int

    @nn.compact
    def __call__(self, x):
        bias_init = uniform_bias(x.shape[-1])
        return nn.Dense(self.features, kernel_init=uniform_fan_in(), bias_init=bias_init)(x)


class MLP(nn.Module):
    """Bias-free linear layers, ReLU between them, none after the last; -> [..., widths[-1]]."""

    widths: Sequence[int]
    last_layer_scale: float = 1.0  # < 1 starts the output closer to zero

    @nn.compact
    def __call__(self, x):
        for i, width in enumerate(self.widths):
            last = i == len(self.widths) - 1
            init = uniform_fan_in(self.last_layer_scale if last else 1.0)
            x = nn.Dense(width, use_bias=False, kernel_init=init, name=f"layer_{i}")(x)
            x = x if last else nn.relu(x)
        return x


class FeedForward(nn.Module):
    """Linear to `hidden`, ReLU, Linear back; [..., C] -> [..., C]."""

    hidden: int

    @nn.compact
    def __call__(self, x):
        return Linear(x.shape[-1], name="down")(nn.relu(Linear(self.hidden, name="up")(x)))
