"""FID's Inception: a torch twin with the official key names, every layer at its true width."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fg3dgs_jax.experts.image import inception
from fg3dgs_jax.weights import variables


def _torch_network():
    """pytorch-fid's network in torch, written out, its parameters and statistics random."""
    from tests import torch_twins

    torch = torch_twins.torch
    nn, F = torch.nn, torch.nn.functional

    class Basic(nn.Module):
        def __init__(self, before, after, size=1, stride=1, padding=0):
            super().__init__()
            self.conv = nn.Conv2d(before, after, size, stride, padding, bias=False)
            self.bn = nn.BatchNorm2d(after, eps=0.001)

        def forward(self, x):
            return F.relu(self.bn(self.conv(x)))

    def average(x):
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

    class A(nn.Module):
        def __init__(self, before, pooled):
            super().__init__()
            self.branch1x1 = Basic(before, 64)
            self.branch5x5_1, self.branch5x5_2 = Basic(before, 48), Basic(48, 64, 5, 1, 2)
            self.branch3x3dbl_1 = Basic(before, 64)
            self.branch3x3dbl_2 = Basic(64, 96, 3, 1, 1)
            self.branch3x3dbl_3 = Basic(96, 96, 3, 1, 1)
            self.branch_pool = Basic(before, pooled)

        def forward(self, x):
            five = self.branch5x5_2(self.branch5x5_1(x))
            three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
            return torch.cat([self.branch1x1(x), five, three, self.branch_pool(average(x))], 1)

    class B(nn.Module):
        def __init__(self):
            super().__init__()
            self.branch3x3 = Basic(288, 384, 3, 2)
            self.branch3x3dbl_1 = Basic(288, 64)
            self.branch3x3dbl_2 = Basic(64, 96, 3, 1, 1)
            self.branch3x3dbl_3 = Basic(96, 96, 3, 2)

        def forward(self, x):
            three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
            return torch.cat([self.branch3x3(x), three, F.max_pool2d(x, 3, 2)], 1)

    class C(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.branch1x1 = Basic(768, 192)
            self.branch7x7_1 = Basic(768, c)
            self.branch7x7_2 = Basic(c, c, (1, 7), 1, (0, 3))
            self.branch7x7_3 = Basic(c, 192, (7, 1), 1, (3, 0))
            self.branch7x7dbl_1 = Basic(768, c)
            self.branch7x7dbl_2 = Basic(c, c, (7, 1), 1, (3, 0))
            self.branch7x7dbl_3 = Basic(c, c, (1, 7), 1, (0, 3))
            self.branch7x7dbl_4 = Basic(c, c, (7, 1), 1, (3, 0))
            self.branch7x7dbl_5 = Basic(c, 192, (1, 7), 1, (0, 3))
            self.branch_pool = Basic(768, 192)

        def forward(self, x):
            one, two = x, x
            for k in (1, 2, 3):
                one = getattr(self, f"branch7x7_{k}")(one)
            for k in (1, 2, 3, 4, 5):
                two = getattr(self, f"branch7x7dbl_{k}")(two)
            return torch.cat([self.branch1x1(x), one, two, self.branch_pool(average(x))], 1)

    class D(nn.Module):
        def __init__(self):
            super().__init__()
            self.branch3x3_1, self.branch3x3_2 = Basic(768, 192), Basic(192, 320, 3, 2)
            self.branch7x7x3_1 = Basic(768, 192)
            self.branch7x7x3_2 = Basic(192, 192, (1, 7), 1, (0, 3))
            self.branch7x7x3_3 = Basic(192, 192, (7, 1), 1, (3, 0))
            self.branch7x7x3_4 = Basic(192, 192, 3, 2)

        def forward(self, x):
            three, seven = self.branch3x3_2(self.branch3x3_1(x)), x
            for k in (1, 2, 3, 4):
                seven = getattr(self, f"branch7x7x3_{k}")(seven)
            return torch.cat([three, seven, F.max_pool2d(x, 3, 2)], 1)

    class E(nn.Module):
        def __init__(self, before, pool):
            super().__init__()
            self.pool = pool
            self.branch1x1, self.branch3x3_1 = Basic(before, 320), Basic(before, 384)
            self.branch3x3_2a = Basic(384, 384, (1, 3), 1, (0, 1))
            self.branch3x3_2b = Basic(384, 384, (3, 1), 1, (1, 0))
            self.branch3x3dbl_1 = Basic(before, 448)
            self.branch3x3dbl_2 = Basic(448, 384, 3, 1, 1)
            self.branch3x3dbl_3a = Basic(384, 384, (1, 3), 1, (0, 1))
            self.branch3x3dbl_3b = Basic(384, 384, (3, 1), 1, (1, 0))
            self.branch_pool = Basic(before, 192)

        def forward(self, x):
            three = self.branch3x3_1(x)
            double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
            branches = [self.branch1x1(x), self.branch3x3_2a(three), self.branch3x3_2b(three)]
            branches += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
            return torch.cat([*branches, self.branch_pool(self.pool(x))], 1)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.Conv2d_1a_3x3 = Basic(3, 32, 3, 2)
            self.Conv2d_2a_3x3 = Basic(32, 32, 3)
            self.Conv2d_2b_3x3 = Basic(32, 64, 3, 1, 1)
            self.Conv2d_3b_1x1 = Basic(64, 80)
            self.Conv2d_4a_3x3 = Basic(80, 192, 3)
            self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = A(192, 32), A(256, 64), A(288, 64)
            self.Mixed_6a = B()
            self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = map(
                C, (128, 160, 160, 192)
            )
            self.Mixed_7a = D()
            self.Mixed_7b, self.Mixed_7c = (
                E(1280, average),
                E(2048, lambda x: F.max_pool2d(x, 3, 1, 1)),
            )
            self.fc = nn.Linear(2048, 1008)

        def forward(self, x):
            x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
            x = F.max_pool2d(x, 3, 2)
            x = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, 2)
            for name, block in self.named_children():
                x = block(x) if name.startswith("Mixed") else x
            return x.mean((2, 3))

    return torch_twins.randomise(Network(), gain=2.0, scale=1.0)


@pytest.fixture(scope="module")
def network():
    return _torch_network()


def test_features_equal_the_torch_twins(network, tmp_path):
    """From the saved file on; at this size the last map has 3 x 2 px, so that its pools matter."""
    torch = pytest.importorskip("torch")
    torch.save(network.state_dict(), tmp_path / "pt_inception.pth")
    loaded = inception.load(tmp_path / "pt_inception.pth")
    pictures = np.random.default_rng(0).random((2, 139, 107, 3)).astype(np.float32)
    pictures[1] *= np.linspace(0, 1, 107)[:, None] ** 2
    with torch.no_grad():
        expected = network(torch.tensor(2 * pictures - 1).permute(0, 3, 1, 2)).numpy()
    found = jax.jit(inception.Inception().apply)(loaded, 2 * pictures - 1)
    assert found.shape == (2, 2048) and np.ptp(expected, axis=0).mean() > 0.1 * expected.mean()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * expected.max())
    variables.save(tmp_path / "fid_inception.npz", loaded)
    again = inception.load(tmp_path / "fid_inception.npz")
    jax.tree.map(np.testing.assert_array_equal, again, loaded)


def test_the_whole_checkpoint_is_read_and_nothing_else(network):
    state = {key: value.numpy() for key, value in network.state_dict().items()}
    converted = inception.convert(state)
    assert len(state) == 94 * 6 + 2
    shapes = jax.eval_shape(
        inception.Inception().init, jax.random.key(0), jnp.zeros((1, 299, 299, 3))
    )
    jax.tree.map(lambda a, b: np.testing.assert_equal(a.shape, b.shape), converted, shapes)
    for key in ("Mixed_6d.branch7x7dbl_4.conv.weight", "Conv2d_4a_3x3.bn.running_var"):
        with pytest.raises(ValueError, match=key):
            inception.convert({k: v for k, v in state.items() if k != key})
    with pytest.raises(ValueError, match="AuxLogits"):
        inception.convert({**state, "AuxLogits.conv0.conv.weight": np.zeros(1)})


def test_pictures_are_resized_as_torch_does_without_smoothing(monkeypatch):
    torch = pytest.importorskip("torch")

    class Eye:
        def apply(self, _, x):
            return x

    monkeypatch.setattr(inception, "Inception", Eye)
    pictures = np.random.default_rng(1).random((1, 512, 400, 3)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.tensor(pictures).permute(0, 3, 1, 2), (299, 299), mode="bilinear"
    ).permute(0, 2, 3, 1)
    found = inception.features.__wrapped__({}, pictures)
    np.testing.assert_allclose(found, 2 * expected.numpy() - 1, atol=1e-5)
    for bad in (pictures[0], (255 * pictures).astype(np.uint8)):
        with pytest.raises(ValueError, match="expected"):
            inception.features.__wrapped__({}, bad)
