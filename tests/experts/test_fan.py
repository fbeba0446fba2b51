"""FAN: torch twin of two stacks, the key table of four, crops and landmarks by slow loops."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fg3dgs_jax.experts.face import fan


def _twin(stacks):
    """FAN in torch, as face_alignment names its parts."""
    torch = pytest.importorskip("torch")
    nn, functional = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            widths = [inputs, outputs // 2, outputs // 4, outputs // 4]
            for i in (1, 2, 3):
                self.add_module(f"bn{i}", nn.BatchNorm2d(widths[i - 1]))
                conv = nn.Conv2d(widths[i - 1], widths[i], 3, padding=1, bias=False)
                self.add_module(f"conv{i}", conv)
            self.downsample = None
            if inputs != outputs:
                conv = nn.Conv2d(inputs, outputs, 1, bias=False)
                self.downsample = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), conv)

        def forward(self, x):
            a = self.conv1(torch.relu(self.bn1(x)))
            b = self.conv2(torch.relu(self.bn2(a)))
            c = self.conv3(torch.relu(self.bn3(b)))
            return torch.cat([a, b, c], 1) + (x if self.downsample is None else self.downsample(x))

    class Hourglass(nn.Module):
        def __init__(self):
            super().__init__()
            for level in (4, 3, 2, 1):
                for k in (1, 2, 3):
                    self.add_module(f"b{k}_{level}", Block(256, 256))
            self.b2_plus_1 = Block(256, 256)

        def forward(self, x, level=4):
            def part(k):
                return getattr(self, f"b{k}_{level}")

            low = part(2)(functional.avg_pool2d(x, 2))
            low = part(3)(self.forward(low, level - 1) if level > 1 else self.b2_plus_1(low))
            return part(1)(x) + functional.interpolate(low, scale_factor=2, mode="nearest")

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3), nn.BatchNorm2d(64)
            self.conv2, self.conv3, self.conv4 = Block(64, 128), Block(128, 128), Block(128, 256)
            for i in range(stacks):
                self.add_module(f"m{i}", Hourglass())
                self.add_module(f"top_m_{i}", Block(256, 256))
                self.add_module(f"conv_last{i}", nn.Conv2d(256, 256, 1))
                self.add_module(f"bn_end{i}", nn.BatchNorm2d(256))
                self.add_module(f"l{i}", nn.Conv2d(256, 68, 1))
                if i < stacks - 1:
                    self.add_module(f"bl{i}", nn.Conv2d(256, 256, 1))
                    self.add_module(f"al{i}", nn.Conv2d(68, 256, 1))

        def forward(self, x):
            x = functional.avg_pool2d(self.conv2(torch.relu(self.bn1(self.conv1(x)))), 2)
            x = self.conv4(self.conv3(x))
            for i in range(stacks):
                part = {n: getattr(self, f"{n}{i}") for n in ("m", "top_m_", "conv_last", "bn_end")}
                y = part["conv_last"](part["top_m_"](part["m"](x)))
                y = torch.relu(part["bn_end"](y))
                maps = getattr(self, f"l{i}")(y)
                if i < stacks - 1:
                    x = x + getattr(self, f"bl{i}")(y) + getattr(self, f"al{i}")(maps)
            return maps

    return Network().eval()


@pytest.fixture(scope="module")
def twin():
    """Two stacks: the first is corrected by the second, which is the last."""
    from tests import torch_twins

    return torch_twins.randomise(_twin(2), gain=0.5, scale=1.0)


def test_heat_maps_equal_torch(twin, tmp_path):
    """From the file on disk; 64 px are enough for an hourglass of four levels."""
    torch = pytest.importorskip("torch")
    torch.save(twin.state_dict(), tmp_path / "fan.pth.tar", _use_new_zipfile_serialization=False)
    state = fan.variables_lib.checkpoints.load(tmp_path / "fan.pth.tar")
    variables = fan.convert(state, stacks=2)
    x = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    with torch.no_grad():
        expected = twin(torch.tensor(x.transpose(0, 3, 1, 2))).numpy().transpose(0, 2, 3, 1)
    found = np.asarray(fan._run(variables, x))
    assert found.shape == expected.shape == (2, 16, 16, 68)
    assert expected.std((1, 2)).mean() > 0.05 * np.abs(expected).mean()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_the_checkpoint_of_four_stacks_fills_the_network(tmp_path):
    torch = pytest.importorskip("torch")
    with torch.device("meta"):
        shapes = {key: tuple(leaf.shape) for key, leaf in _twin(4).state_dict().items()}
    state = {key: np.zeros(shape, np.float32) for key, shape in shapes.items()}
    path = tmp_path / "fan.npz"
    fan.variables_lib.save(path, fan.convert(state))
    variables = fan.load(path)
    init = jax.eval_shape(fan.FAN().init, jax.random.key(0), jnp.zeros((1, 256, 256, 3)))
    found, expected = (jax.tree.map(lambda leaf: leaf.shape, tree) for tree in (variables, init))
    assert found == expected
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == 23_820_176
    for key in ("m3.b2_plus_1.bn2.running_var", "al2.weight", "conv4.downsample.2.weight"):
        with pytest.raises(ValueError, match=key):
            fan.convert({k: v for k, v in state.items() if k != key})
    with pytest.raises(ValueError, match=r"bl3\.weight"):
        fan.convert(state | {"bl3.weight": np.zeros((256, 256, 1, 1))})
    with pytest.raises(ValueError, match=r"\(68, 256, 1, 1\)"):
        fan.convert(state | {"l0.weight": np.zeros((69, 256, 1, 1))})


_BOXES = [(40, 30, 120, 131), (3.7, -20.2, 77.1, 60.9), (90, 60, 180.5, 170), (60, 60, 75, 72)]


def _slow_crop(image, centre, scale):
    """The original's steps, with its 1-based places."""

    def place(x, y):
        h = 200.0 * scale
        return [int(v * h / 256 + c - h / 2) for v, c in ((x, centre[0]), (y, centre[1]))]

    (x0, y0), (x1, y1) = place(1, 1), place(256, 256)
    out = np.zeros((y1 - y0, x1 - x0, 3), np.uint8)
    for row in range(y0, y1):
        for column in range(x0, x1):
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                out[row - y0, column - x0] = image[row, column]
    return cv2.resize(out, (256, 256), interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize("box", _BOXES)
def test_crops_equal_the_slow_loop(box):
    frame = np.random.default_rng(1).integers(1, 256, (150, 170, 3), np.uint8)
    x0, y0, x1, y1 = box
    centre = [x1 - (x1 - x0) / 2, y1 - (y1 - y0) / 2 - 0.12 * (y1 - y0)]
    expected = _slow_crop(frame, centre, (x1 - x0 + y1 - y0) / 195)
    found = fan.crop(frame, fan.window(box))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("box", _BOXES)
def test_landmarks_equal_the_slow_loop(box):
    rng = np.random.default_rng(2)
    maps = rng.random((64, 64, 68)).astype(np.float32)
    for n, (row, column) in enumerate([(0, 5), (63, 63), (5, 0), (62, 1), (1, 62), (0, 0)]):
        maps[row, column, n] = 2
    maps[20:24, 30:34, 6] = 3  # a plateau: its first cell, no slope where its neighbours are equal
    x0, y0, x1, y1 = box
    centre = [x1 - (x1 - x0) / 2, y1 - (y1 - y0) / 2 - 0.12 * (y1 - y0)]
    side = 200 * (x1 - x0 + y1 - y0) / 195
    expected = []
    for n in range(68):
        heat = maps[..., n]
        row, column = np.unravel_index(heat.argmax(), heat.shape)
        x, y = column + 1.0, row + 1.0
        if 0 < column < 63 and 0 < row < 63:
            x += 0.25 * np.sign(heat[row, column + 1] - heat[row, column - 1])
            y += 0.25 * np.sign(heat[row + 1, column] - heat[row - 1, column])
        t = np.array([[64 / side, 0, 64 * (0.5 - centre[0] / side)], [0, 64 / side, 0], [0, 0, 1]])
        t[1, 2] = 64 * (0.5 - centre[1] / side)
        expected.append((np.linalg.inv(t) @ [x - 0.5, y - 0.5, 1])[:2].astype(np.int32))
    found = fan.decode(maps, fan.window(box))
    assert found.shape == (68, 2) and np.ptp(found, 0).min() > 10
    np.testing.assert_array_equal(found, expected)


def test_a_face_moves_with_its_box(twin):
    """Landmarks of a picture that is shifted by whole pixels shift with it."""
    variables = fan.convert({k: v.numpy() for k, v in twin.state_dict().items()}, stacks=2)
    coarse = np.random.default_rng(4).integers(0, 256, (40, 40, 3), np.uint8)
    picture = cv2.resize(coarse, (320, 320), interpolation=cv2.INTER_CUBIC)
    first = fan.landmarks(variables, picture[:280, :280], (90, 90, 190, 190, 0.99))
    second = fan.landmarks(variables, picture[20:300, 30:310], (60, 70, 160, 170))
    assert first.shape == (68, 2) and len(np.unique(first, axis=0)) > 10
    np.testing.assert_array_equal(first - second, np.tile([30, 20], (68, 1)))


def test_wrong_inputs_are_refused():
    frame = np.zeros((60, 60, 3), np.uint8)
    with pytest.raises(ValueError, match="uint8 RGB"):
        fan.landmarks({}, np.zeros((60, 60, 3)), (10, 10, 30, 30))
    with pytest.raises(ValueError, match="x0, y0, x1, y1"):
        fan.landmarks({}, frame, (30, 10, 10, 30))
    with pytest.raises(ValueError, match="not in the picture"):
        fan.landmarks({}, frame, (500, 500, 530, 530))
