"""What the torch twins share: blocks by torch's names, and random weights.

Imported where it is used, so that only the tests that need torch skip without it.
"""

import pytest

torch = pytest.importorskip("torch")
nn = torch.nn
F = torch.nn.functional


def pair(conv_name, norm_name, inputs, outputs, kernel, stride=1):
    """{name: module} of a convolution without bias and its batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return {conv_name: conv, norm_name: nn.BatchNorm2d(outputs)}


class ConvNorm(nn.Module):
    """`conv`, `bn`, ReLU."""

    def __init__(self, *shape, conv_name="conv"):
        super().__init__()
        self.order = list(pair(conv_name, "bn", *shape).items())
        for name, module in self.order:
            self.add_module(name, module)
        self.order = [name for name, _ in self.order]

    def forward(self, x):
        for name in self.order:
            x = getattr(self, name)(x)
        return torch.relu(x)


class Residual(nn.Module):
    """conv1, bn1, conv2, bn2 ...; ReLU between; `downsample` where the shape changes."""

    def __init__(self, inputs, widths, kernels, strides):
        super().__init__()
        self.count, before = len(widths), inputs
        for i, shape in enumerate(zip(widths, kernels, strides, strict=True), 1):
            for name, module in pair(f"conv{i}", f"bn{i}", before, *shape).items():
                self.add_module(name, module)
            before = shape[0]
        if inputs != before:
            short = pair("0", "1", inputs, before, 1, max(strides))
            self.downsample = nn.Sequential(*short.values())

    def forward(self, x):
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = torch.relu(y) if i < self.count else y
        return torch.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))


class SyncBlock(nn.Module):
    """Wav2Lip's `conv_block`: convolution with bias, batch norm, the input again, ReLU."""

    def __init__(self, inputs, outputs, kernel, stride, padding, residual):
        super().__init__()
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding)
        self.conv_block = nn.Sequential(conv, nn.BatchNorm2d(outputs))
        self.residual = residual

    def forward(self, x):
        y = self.conv_block(x)
        return torch.relu(y + x if self.residual else y)


def randomise(module, seed=0, gain=1.5, scale=0.8):
    """Every parameter and statistic away from its default; returns the module, in eval mode.

    `gain` of the kernels (2 keeps the size through ReLUs), `scale`: mean of the norms' weights.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, leaf in [*module.named_parameters(), *module.named_buffers()]:
            if name.endswith("running_var"):
                leaf.uniform_(0.5, 1.5, generator=generator)
            elif name.endswith("num_batches_tracked"):
                leaf.fill_(7)
            elif leaf.ndim > 1:
                leaf.normal_(0, (gain / leaf[0].numel()) ** 0.5, generator=generator)
            else:  # biases, means, scales
                leaf.normal_(0, 0.2, generator=generator)
                if name.endswith("weight"):
                    leaf.add_(scale)
    return module.eval()


def balance(weight):
    """A classifier [classes, C, 1, 1] that no constant wins: each row's sum is zero.

    Its inputs are all positive, so that one class would else be found everywhere.
    """
    with torch.no_grad():
        weight -= weight.mean(1, keepdim=True)
        weight *= 5
