"""BiSeNet against a torch twin, its resizing against Pillow, and what it refuses."""

import jax
import numpy as np
import pytest

from fg3dgs_jax.clip import format
from fg3dgs_jax.experts.face import bisenet, pil_resize
from fg3dgs_jax.weights import variables


def _torch_bisenet():
    torch = pytest.importorskip("torch")
    from tests.torch_twins import ConvNorm, F, Residual, balance, nn, pair, randomise

    class Trunk(nn.Module):
        def __init__(self):
            super().__init__()
            for name, module in pair("conv1", "bn1", 3, 64, 7, 2).items():
                self.add_module(name, module)
            before = 64
            for i, width in enumerate((64, 128, 256, 512), 1):
                blocks = []
                for k in (0, 1):
                    stride = 2 if i > 1 and k == 0 else 1
                    blocks.append(Residual(before, [width] * 2, [3, 3], [stride, 1]))
                    before = width
                setattr(self, f"layer{i}", nn.Sequential(*blocks))

        def forward(self, x):
            x = F.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
            eighth = self.layer2(self.layer1(x))
            sixteenth = self.layer3(eighth)
            return eighth, sixteenth, self.layer4(sixteenth)

    class Arm(nn.Module):
        def __init__(self, inputs):
            super().__init__()
            self.conv = ConvNorm(inputs, 128, 3)
            self.conv_atten = nn.Conv2d(128, 128, 1, bias=False)
            self.bn_atten = nn.BatchNorm2d(128)

        def forward(self, x):
            x = self.conv(x)
            mean = F.avg_pool2d(x, x.shape[2:])
            return x * torch.sigmoid(self.bn_atten(self.conv_atten(mean)))

    class Context(nn.Module):
        def __init__(self):
            super().__init__()
            self.resnet = Trunk()
            self.arm16, self.arm32 = Arm(256), Arm(512)
            self.conv_head32, self.conv_head16 = ConvNorm(128, 128, 3), ConvNorm(128, 128, 3)
            self.conv_avg = ConvNorm(512, 128, 1)

        def forward(self, x):
            eighth, sixteenth, x = self.resnet(x)
            average = self.conv_avg(F.avg_pool2d(x, x.shape[2:]))
            x = self.arm32(x) + F.interpolate(average, x.shape[2:], mode="nearest")
            x = self.conv_head32(F.interpolate(x, sixteenth.shape[2:], mode="nearest"))
            x = self.arm16(sixteenth) + x
            return eighth, self.conv_head16(F.interpolate(x, eighth.shape[2:], mode="nearest"))

    class Fusion(nn.Module):
        def __init__(self):
            super().__init__()
            self.convblk = ConvNorm(256, 256, 1)
            self.conv1 = nn.Conv2d(256, 64, 1, bias=False)
            self.conv2 = nn.Conv2d(64, 256, 1, bias=False)

        def forward(self, fine, coarse):
            x = self.convblk(torch.cat([fine, coarse], 1))
            mean = F.avg_pool2d(x, x.shape[2:])
            return x + x * torch.sigmoid(self.conv2(torch.relu(self.conv1(mean))))

    class Head(nn.Module):
        def __init__(self, inputs, width):
            super().__init__()
            self.conv = ConvNorm(inputs, width, 3)
            self.conv_out = nn.Conv2d(width, 19, 1, bias=False)

        def forward(self, x):
            return self.conv_out(self.conv(x))

    class BiSeNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.cp, self.ffm = Context(), Fusion()
            self.conv_out = Head(256, 256)
            self.conv_out16, self.conv_out32 = Head(128, 64), Head(128, 64)

        def forward(self, x):
            scores = self.conv_out(self.ffm(*self.cp(x)))
            return F.interpolate(scores, x.shape[2:], mode="bilinear", align_corners=True)

    network = randomise(BiSeNet())
    balance(network.conv_out.conv_out.weight)
    return network


@pytest.fixture(scope="module")
def twin():
    return _torch_bisenet()


@pytest.fixture(scope="module")
def loaded(twin, tmp_path_factory):
    torch = pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("bisenet") / "79999_iter.pth"
    torch.save(twin.state_dict(), path)
    return bisenet.load(path)


def _expected(twin, pictures):
    torch = pytest.importorskip("torch")
    x = (pictures / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with torch.no_grad():
        y = twin(torch.tensor(x.transpose(0, 3, 1, 2).astype(np.float32)))
    return y.numpy().transpose(0, 2, 3, 1)


def test_the_checkpoint_has_191_keys_and_13_million_parameters(twin, loaded):
    assert len(twin.state_dict()) == 191
    assert sum(p.numel() for p in twin.parameters()) == 13_300_416
    left_out = 2 * (128 * 64 * 9 + 2 * 64 + 64 * 19)  # the heads of training
    assert sum(x.size for x in jax.tree.leaves(loaded["params"])) == 13_300_416 - left_out


def test_classes_are_ours():
    assert {name: i for i, name in enumerate(bisenet.CLASSES)} | {"teeth": 19} == format.LABELS


def test_logits_equal_torch(twin, loaded):
    pictures = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)
    expected = _expected(twin, pictures)
    assert expected.std((0, 1, 2)).min() > 0.01 * np.abs(expected).max()
    found = np.asarray(bisenet.logits(loaded, pictures))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_classes_of_whole_frames_equal_torch(twin, loaded):
    """A frame of another size goes through Pillow's resizing and comes back at its own."""
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(1)
    frame = np.kron(rng.integers(0, 256, (15, 18, 3), np.uint8), np.ones((20, 20, 1), np.uint8))
    at_512 = np.asarray(image.fromarray(frame).resize((512, 512), image.BILINEAR))
    scores = _expected(twin, at_512[None])[0]
    rows, columns = ((np.arange(n) + 0.5) * 512 / n for n in frame.shape[:2])
    at = np.ix_(rows.astype(int), columns.astype(int))
    expected = scores.argmax(-1).astype(np.uint8)[at]
    labels = bisenet.parse(loaded, frame)
    assert labels.dtype == np.uint8 and labels.shape == (300, 360)
    assert len(np.unique(expected)) > 3
    assert (labels == expected).mean() > 0.9999  # a tie may fall the other way
    parts, person = bisenet.segment(loaded, frame[None])
    assert parts.shape == person.shape == (1, 300, 360) and person.dtype == np.float32
    assert parts.min() >= 1
    assert (parts[0] == 1 + scores[..., 1:].argmax(-1)[at]).mean() > 0.9999
    share = np.exp(scores - scores.max(-1, keepdims=True))
    sure = 1 - share[..., 0] / share.sum(-1)
    assert abs(person.mean() - sure.mean()) < 1e-3 and 0.01 < person.std()


@pytest.mark.parametrize(
    "size", [(512, 512), (300, 700), (37, 1100), (511, 513), (900, 800), (1, 1)]
)
def test_resizing_is_pillows(size):
    image = pytest.importorskip("PIL.Image")
    picture = np.random.default_rng(2).integers(0, 256, (*size, 3), np.uint8)
    expected = np.asarray(image.fromarray(picture).resize((512, 512), image.BILINEAR))
    np.testing.assert_array_equal(pil_resize.bilinear(picture, 512, 512), expected)


def test_another_state_dict_is_refused(twin):
    state = {key: value.numpy() for key, value in twin.state_dict().items()}
    key = "cp.arm16.bn_atten.running_var"
    with pytest.raises(ValueError, match=key):
        bisenet.convert({k: v for k, v in state.items() if k != key})
    with pytest.raises(ValueError, match=r"cp\.resnet\.fc\.weight"):
        bisenet.convert(state | {"cp.resnet.fc.weight": np.zeros((2, 2))})
    with pytest.raises(ValueError, match=r"\(19, 256, 1, 1\)"):
        bisenet.convert(state | {"conv_out.conv_out.weight": np.zeros((9, 256, 1, 1))})
    bisenet.convert({f"module.{k}": v for k, v in state.items() if not k.startswith("conv_out32")})


def test_our_converted_file_is_read(loaded, tmp_path):
    variables.save(tmp_path / "bisenet.npz", loaded)
    again = bisenet.load(tmp_path / "bisenet.npz")
    assert jax.tree.all(jax.tree.map(np.array_equal, loaded, again))


def test_wrong_frames_are_refused():
    with pytest.raises(ValueError, match="uint8 RGB"):
        bisenet.parse({}, np.zeros((4, 4, 3), np.float32))
    with pytest.raises(ValueError, match="multiples of 32"):
        bisenet.logits({}, np.zeros((1, 48, 64, 3), np.uint8))
    with pytest.raises(ValueError, match="expected uint8"):
        pil_resize.bilinear(np.zeros((4, 4, 3)), 2, 2)
