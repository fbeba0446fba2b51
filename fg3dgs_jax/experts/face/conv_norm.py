"""A convolution and its batch norm: the brick that the parsing networks are built of."""

import flax.linen as nn
import jax

PRECISION = jax.lax.Precision.HIGHEST


class ConvNorm(nn.Module):
    """Convolution without bias, padded to keep the size, and batch norm with stored statistics."""

    features: int
    kernel: int  # odd
    stride: int = 1

    @nn.compact
    def __call__(self, x):
        x = conv(self.features, self.kernel, self.stride, bias=False, name="conv")(x)
        return nn.BatchNorm(use_running_average=True, epsilon=1e-5, name="norm")(x)


def conv(features, kernel, stride=1, bias=True, name=None) -> nn.Conv:
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


def read(keys, conv_name, norm_name, outputs, inputs, kernel) -> tuple[dict, dict]:
    """(params, batch_stats) of a `ConvNorm` from a torch state dict's `Keys`."""
    kernels = keys.conv(conv_name, bias=False, shape=(outputs, inputs, kernel, kernel))
    scale, running = keys.batch_norm(norm_name)
    return {"conv": kernels, "norm": scale}, {"norm": running}
