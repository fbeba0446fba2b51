"""EasyPortrait's FPN-ResNet50 against a torch twin, from a file as mmseg writes it."""

import collections
import pickle

import jax
import numpy as np
import pytest

from fg3dgs_jax.experts.face import easyportrait


def _torch_fpn():
    pytest.importorskip("torch")
    from tests.torch_twins import ConvNorm, F, Residual, balance, nn, pair, randomise

    class Backbone(nn.Module):
        def __init__(self):
            super().__init__()
            stem, before = [], 3
            for width, stride in ((32, 2), (32, 1), (64, 1)):
                stem += [*pair("", "_", before, width, 3, stride).values(), nn.ReLU()]
                before = width
            self.stem = nn.Sequential(*stem)
            for i, (width, count) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
                blocks = []
                for k in range(count):
                    stride = 2 if i > 1 and k == 0 else 1
                    widths = [width, width, 4 * width]
                    blocks.append(Residual(before, widths, [1, 3, 1], [1, stride, 1]))
                    before = 4 * width
                setattr(self, f"layer{i}", nn.Sequential(*blocks))

        def forward(self, x):
            x, maps = F.max_pool2d(self.stem(x), 3, 2, 1), []
            for i in (1, 2, 3, 4):
                x = getattr(self, f"layer{i}")(x)
                maps.append(x)
            return maps

    class Bare(nn.Module):
        def __init__(self, inputs, outputs, kernel):
            super().__init__()
            self.conv = nn.Conv2d(inputs, outputs, kernel, 1, kernel // 2)

        def forward(self, x):
            return self.conv(x)

    class Neck(nn.Module):
        def __init__(self):
            super().__init__()
            widths = (256, 512, 1024, 2048)
            self.lateral_convs = nn.ModuleList([Bare(width, 256, 1) for width in widths])
            self.fpn_convs = nn.ModuleList([Bare(256, 256, 3) for _ in widths])

        def forward(self, maps):
            maps = [lateral(x) for lateral, x in zip(self.lateral_convs, maps, strict=True)]
            for i in (3, 2, 1):
                size = maps[i - 1].shape[2:]
                maps[i - 1] = maps[i - 1] + F.interpolate(maps[i], size=size, mode="nearest")
            return [conv(x) for conv, x in zip(self.fpn_convs, maps, strict=True)]

    class Twice(nn.Module):
        def forward(self, x):
            size = [int(2.0 * n) for n in x.shape[2:]]
            return F.interpolate(x, size=size, mode="bilinear", align_corners=False)

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale_heads = nn.ModuleList()
            for level in range(4):
                steps = []
                for k in range(max(1, level)):
                    steps.append(ConvNorm(128 if k else 256, 128, 3))
                    steps += [Twice()] if level else []
                self.scale_heads.append(nn.Sequential(*steps))
            self.conv_seg = nn.Conv2d(128, 8, 1)

        def forward(self, maps):
            total = self.scale_heads[0](maps[0])
            for head, x in zip(self.scale_heads[1:], maps[1:], strict=True):
                total = total + F.interpolate(
                    head(x), size=total.shape[2:], mode="bilinear", align_corners=False
                )
            return self.conv_seg(total)

    class Segmentor(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.neck, self.decode_head = Backbone(), Neck(), Head()

        def forward(self, x):
            scores = self.decode_head(self.neck(self.backbone(x)))
            return F.interpolate(scores, size=x.shape[2:], mode="bilinear", align_corners=False)

    network = randomise(Segmentor())
    balance(network.decode_head.conv_seg.weight)
    return network


@pytest.fixture(scope="module")
def twin():
    return _torch_fpn()


@pytest.fixture(scope="module")
def loaded(twin, tmp_path_factory):
    """Read from a file as mmseg saves it: metadata with NumPy scalars, optimiser, weights."""
    torch = pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("easyportrait") / "fpn-fp-512.pth"
    meta = {
        "mmseg_version": "0.30.0",
        "config": "model = dict()",
        "CLASSES": easyportrait.CLASSES,
        "PALETTE": [[0, 0, 0]] * 8,
        "epoch": 100,
        "seed": np.int64(3),
        "lr": np.float64(0.1),
    }
    optimiser = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    state = collections.OrderedDict(twin.state_dict())
    torch.save({"meta": meta, "state_dict": state, "optimizer": optimiser}, path)
    return easyportrait.load(path)


def test_logits_equal_torch_at_odd_sizes(twin, loaded):
    torch = pytest.importorskip("torch")
    frames = np.random.default_rng(0).integers(0, 256, (2, 75, 98, 3), np.uint8)
    x = (frames - [143.55267, 132.96706, 126.94924]) / [60.26253, 60.32740, 59.30989]
    with torch.no_grad():
        expected = twin(torch.tensor(x.transpose(0, 3, 1, 2).astype(np.float32))).numpy()
    expected = expected.transpose(0, 2, 3, 1)
    assert expected.std((0, 1, 2)).min() > 0.01 * np.abs(expected).max()
    found = np.asarray(easyportrait.logits(loaded, frames))
    assert found.shape == (2, 75, 98, 8)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    labels = np.asarray(easyportrait.parse(loaded, frames))
    assert labels.dtype == np.uint8 and len(np.unique(labels)) > 3
    assert (labels == expected.argmax(-1)).mean() > 0.9995  # a tie may fall the other way


def test_the_network_has_28_million_parameters(twin, loaded):
    count = sum(p.numel() for p in twin.parameters())
    assert 28.4e6 < count < 28.6e6
    assert sum(x.size for x in jax.tree.leaves(loaded["params"])) == count
    assert easyportrait.CLASSES[easyportrait.TEETH] == "teeth" and easyportrait.TEETH == 7


def test_another_state_dict_is_refused(twin):
    state = {key: value.numpy() for key, value in twin.state_dict().items()}
    key = "decode_head.scale_heads.3.4.bn.running_mean"
    with pytest.raises(ValueError, match=key):
        easyportrait.convert({k: v for k, v in state.items() if k != key})
    with pytest.raises(ValueError, match="auxiliary_head"):
        easyportrait.convert(state | {"auxiliary_head.conv_seg.bias": np.zeros(8)})
    with pytest.raises(ValueError, match=r"\(8, 128, 1, 1\)"):
        nine = np.zeros((9, 128, 1, 1), np.float32)  # the dataset's own nine classes
        easyportrait.convert(state | {"decode_head.conv_seg.weight": nine})


def test_a_file_that_would_run_something_is_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return print, ("boom",)

    torch = pytest.importorskip("torch")
    torch.save({"meta": Bomb(), "state_dict": {"a": torch.zeros(1)}}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match="print"):
        easyportrait.load(tmp_path / "bad.pth")
    (tmp_path / "worse.pth").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError):
        easyportrait.load(tmp_path / "worse.pth")


def test_wrong_frames_are_refused():
    with pytest.raises(ValueError, match="uint8 RGB"):
        easyportrait.parse({}, np.zeros((1, 8, 8, 3), np.float32))
