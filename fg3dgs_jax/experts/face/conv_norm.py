"""A convolution and its batch norm: the brick that the parsing networks are built of."""

import flax.linen as nn
import jax

from fg3dgs_jax.weights.keys import Keys

PRECISION = jax.lax.Precision.HIGHEST


class ConvNorm(nn.Module):
    """Convolution without bias, padded to keep the size, and batch norm with stored statistics."""

    features: int
    kernel: int  # odd
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] -> [B, H / stride, W / stride, features]."""
        x = conv(self.features, self.kernel, self.stride, bias=False, name="conv")(x)
        return nn.BatchNorm(use_running_average=True, epsilon=1e-5, name="norm")(x)


def conv(
    features: int, kernel: int, stride: int = 1, bias: bool = True, name: str | None = None
) -> nn.Conv:
    """Square convolution with half a kernel of zeros on each side, at stride 2 too."""
    return nn.Conv(
        features,
        (kernel, kernel),
        stride,
        [(kernel // 2, kernel // 2)] * 2,
        use_bias=bias,
        precision=PRECISION,
        name=name,
    )


def read(
    keys: Keys, conv_name: str, norm_name: str, outputs: int, inputs: int, kernel: int
) -> tuple[dict, dict]:
    """(params, batch_stats) of a `ConvNorm` from a torch state dict's `Keys`."""
    kernels = keys.conv(conv_name, bias=False, shape=(outputs, inputs, kernel, kernel))
    scale, running = keys.batch_norm(norm_name)
    return {"conv": kernels, "norm": scale}, {"norm": running}
