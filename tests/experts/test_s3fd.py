"""S3FD in its two published forms: torch twins, boxes and suppression by slow loops."""

import math

import cv2
import numpy as np
import pytest

from fg3dgs_jax.experts.face import s3fd
from fg3dgs_jax.weights import variables

_VGG = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256)]
_VGG += [(256, 512), *[(512, 512)] * 5]
_NAMES = "1_1 1_2 2_1 2_2 3_1 3_2 3_3 4_1 4_2 4_3 5_1 5_2 5_3".split()
_SOURCES = [(256, 4), (512, 2), (512, 2), (1024, 2), (512, 2), (256, 2)]


def _randomise(torch, network, seed=0):
    """Every parameter away from its default; maps keep their range from layer to layer."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, leaf in network.named_parameters():
            if leaf.ndim == 4:
                leaf.normal_(0, (2 / leaf[0].numel()) ** 0.5, generator=generator)
                if leaf.shape[1] == 3:  # pictures are some 64 either way
                    leaf.div_(64)
                elif "conf" in name:  # some anchors are certain
                    leaf.mul_(4)
            elif name.endswith("bias"):
                leaf.normal_(0, 0.2, generator=generator)
            else:
                leaf.uniform_(4, 12, generator=generator)
    return network.eval()


def _norm(torch, x, weight):
    return x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) * weight.view(1, -1, 1, 1)


def _python_fan():
    """The network of face_alignment in torch."""
    torch = pytest.importorskip("torch")
    conv, relu, pool = torch.nn.Conv2d, torch.relu, torch.nn.functional.max_pool2d

    class Norm(torch.nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(channels))

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name, (inputs, outputs) in zip(_NAMES, _VGG, strict=True):
                self.add_module(f"conv{name}", conv(inputs, outputs, 3, padding=1))
            self.fc6, self.fc7 = conv(512, 1024, 3, padding=3), conv(1024, 1024, 1)
            self.conv6_1, self.conv6_2 = conv(1024, 256, 1), conv(256, 512, 3, 2, 1)
            self.conv7_1, self.conv7_2 = conv(512, 128, 1), conv(128, 256, 3, 2, 1)
            heads = "conv3_3_norm conv4_3_norm conv5_3_norm fc7 conv6_2 conv7_2".split()
            for name, (channels, scores) in zip(heads, _SOURCES, strict=True):
                self.add_module(f"{name}_mbox_conf", conv(channels, scores, 3, padding=1))
                self.add_module(f"{name}_mbox_loc", conv(channels, 4, 3, padding=1))
                if name.endswith("norm"):
                    self.add_module(name, Norm(channels))
            self.heads = heads

        def forward(self, x):
            seen = []
            for name in _NAMES:
                x = relu(getattr(self, f"conv{name}")(x))
                if name in ("3_3", "4_3", "5_3"):
                    seen.append(_norm(torch, x, getattr(self, f"conv{name}_norm").weight))
                if name in ("1_2", "2_2", "3_3", "4_3", "5_3"):
                    x = pool(x, 2, 2)
            x = relu(self.fc7(relu(self.fc6(x))))
            seen.append(x)
            seen.append(relu(self.conv6_2(relu(self.conv6_1(x)))))
            seen.append(relu(self.conv7_2(relu(self.conv7_1(seen[-1])))))
            found = []
            for i, (name, x) in enumerate(zip(self.heads, seen, strict=True)):
                score = getattr(self, f"{name}_mbox_conf")(x)
                if i == 0:
                    a, b, c, d = torch.chunk(score, 4, 1)
                    score = torch.cat([torch.max(torch.max(a, b), c), d], 1)
                found.append((score, getattr(self, f"{name}_mbox_loc")(x)))
            return found

    return _randomise(torch, Network())


def _syncnet():
    """The network of syncnet_python in torch."""
    torch = pytest.importorskip("torch")
    conv, nn = torch.nn.Conv2d, torch.nn

    class Norm(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(channels))

        def forward(self, x):
            return _norm(torch, x, self.weight)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            layers = []
            for name, (inputs, outputs) in zip(_NAMES, _VGG, strict=True):
                layers += [conv(inputs, outputs, 3, padding=1), nn.ReLU()]
                if name in ("1_2", "2_2", "3_3", "4_3", "5_3"):
                    layers.append(nn.MaxPool2d(2, 2, ceil_mode=name == "3_3"))
            layers += [conv(512, 1024, 3, padding=6, dilation=6), nn.ReLU()]
            self.vgg = nn.ModuleList([*layers, conv(1024, 1024, 1), nn.ReLU()])
            self.L2Norm3_3, self.L2Norm4_3, self.L2Norm5_3 = Norm(256), Norm(512), Norm(512)
            self.extras = nn.ModuleList(
                [conv(1024, 256, 1), conv(256, 512, 3, 2, 1), conv(512, 128, 1)]
                + [conv(128, 256, 3, 2, 1)]
            )
            self.loc = nn.ModuleList([conv(c, 4, 3, padding=1) for c, _ in _SOURCES])
            self.conf = nn.ModuleList([conv(c, n, 3, padding=1) for c, n in _SOURCES])

        def forward(self, x):
            seen, at = [], 0
            for stop, norm in ((16, "3_3"), (23, "4_3"), (30, "5_3"), (35, None)):
                for layer in self.vgg[at:stop]:
                    x = layer(x)
                seen.append(getattr(self, f"L2Norm{norm}")(x) if norm else x)
                at = stop
            for i, layer in enumerate(self.extras):
                x = torch.relu(layer(x))
                if i % 2:
                    seen.append(x)
            scores = [layer(x) for layer, x in zip(self.conf, seen, strict=True)]
            background = scores[0][:, :3].max(1, keepdim=True).values
            scores[0] = torch.cat([background, scores[0][:, 3:]], 1)
            boxes = [layer(x) for layer, x in zip(self.loc, seen, strict=True)]
            return list(zip(scores, boxes, strict=True))

    return _randomise(torch, Network())


_TWINS = {"python_fan": _python_fan, "syncnet": _syncnet}


@pytest.fixture(scope="module", params=["python_fan", "syncnet"])
def loaded(request, tmp_path_factory):
    """(variant, torch twin, what `load` read from its file): one in each of torch's containers."""
    torch = pytest.importorskip("torch")
    twin = _TWINS[request.param]()
    path = tmp_path_factory.mktemp("s3fd") / "s3fd.pth"
    zipped = request.param == "python_fan"
    torch.save(twin.state_dict(), path, _use_new_zipfile_serialization=zipped)
    found = s3fd.load(path)
    path.unlink()
    return s3fd.VARIANTS[request.param], twin, found


def _picture(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 6, width // 6, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def test_every_map_equals_torch(loaded):
    """Odd sides: the third pooling keeps or drops a row and a column."""
    torch = pytest.importorskip("torch")
    variant, twin, found = loaded
    x = s3fd.normalised(_picture(84, 100), variant)
    with torch.no_grad():
        expected = twin(torch.tensor(x.transpose(2, 0, 1)[None]))
    settings = variant.dilation, variant.padding, variant.ceil_pool
    maps = s3fd._run(settings, found["params"][variant.name], x[None])
    assert len(maps) == 6 and s3fd.variant_of(found) is variant
    for pair, their_pair in zip(maps, expected, strict=True):
        for ours, theirs in zip(pair, their_pair, strict=True):
            theirs = theirs.numpy().transpose(0, 2, 3, 1)
            assert ours.shape == theirs.shape
            assert theirs[..., -1].std() > 0.01 * np.abs(theirs).mean() or theirs.size < 20
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5 * np.abs(theirs).max())


def test_faces_are_those_of_the_slow_loop(loaded):
    """From picture to boxes: torch's maps, one anchor at a time, one pair of boxes at a time."""
    torch = pytest.importorskip("torch")
    variant, twin, found = loaded
    frame = _picture(330, 390, seed=1) if variant.scale < 1 else _picture(84, 100, seed=1)
    small = frame
    if variant.scale < 1:
        small = cv2.resize(frame, (0, 0), fx=0.25, fy=0.25)  # unlike by size: 97.5 px are 98
        assert small.shape == (82, 98, 3)
    x = small.astype(np.float64)
    x = x[..., ::-1] - [104, 117, 123] if variant.bgr else x - [123, 117, 104]
    with torch.no_grad():
        maps = twin(torch.tensor(x.transpose(2, 0, 1)[None].astype(np.float32)))
    expected = _slow_faces(maps, frame, small, variant)
    ours = s3fd.detect(found, frame)
    assert 1 <= len(expected) < 100 and ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-2)
    assert (np.diff(ours[:, 4]) <= 0).all() and ours[:, 4].min() > variant.keep


def _slow_faces(maps, frame, small, variant):
    boxes = []
    ratio = [frame.shape[1] / small.shape[1], frame.shape[0] / small.shape[0]]
    for level, (scores, offsets) in enumerate(maps):
        probabilities = scores.softmax(1)[0, 1].double().numpy()
        for row, column in np.ndindex(probabilities.shape):
            if probabilities[row, column] <= 0.05:
                continue
            stride = 2 ** (level + 2)
            dx, dy, dw, dh = (float(v) for v in offsets[0, :, row, column])
            x, y = (column + 0.5 + 0.4 * dx) * stride, (row + 0.5 + 0.4 * dy) * stride
            w, h = 4 * stride * math.exp(0.2 * dw), 4 * stride * math.exp(0.2 * dh)
            corners = [(x - w / 2) * ratio[0], (y - h / 2) * ratio[1]]
            corners += [(x + w / 2) * ratio[0], (y + h / 2) * ratio[1]]
            boxes.append((*corners, probabilities[row, column]))
    boxes = sorted(boxes, key=lambda box: -box[4])
    for overlap in (0.3, 0.1) if variant.name == "syncnet" else (0.3,):
        boxes = _slow_suppression(boxes, overlap, 1 if variant.name == "python_fan" else 0)
    return [box for box in boxes if box[4] > variant.keep]


def _slow_suppression(boxes, overlap, pixel):
    kept = []
    for box in sorted(boxes, key=lambda box: -box[4]):
        if all(_overlap(box, other, pixel) <= overlap for other in kept):
            kept.append(box)
    return kept


def _overlap(a, b, pixel):
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + pixel)
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + pixel)
    areas = [(c[2] - c[0] + pixel) * (c[3] - c[1] + pixel) for c in (a, b)]
    return w * h / (sum(areas) - w * h)


@pytest.mark.parametrize("pixel", [0.0, 1.0])
@pytest.mark.parametrize("overlap", [0.1, 0.3])
def test_suppression_equals_the_slow_loop(overlap, pixel):
    rng = np.random.default_rng(3)
    corner = rng.uniform(0, 60, (80, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 40, (80, 2)), rng.random((80, 1))], 1)
    expected = _slow_suppression([tuple(box) for box in boxes], overlap, pixel)
    found = boxes[s3fd.suppress(boxes, overlap, pixel)]
    assert 3 < len(expected) < 40
    np.testing.assert_array_equal(found, expected)


def test_no_face_is_no_box():
    maps = [(np.zeros((2, 2, 2)) + [9.0, 0.0], np.zeros((2, 2, 4)))] * 6
    boxes = s3fd.decode(maps)
    assert boxes.shape == (0, 5) and s3fd.suppress(boxes, 0.3).shape == (0,)


def test_a_certain_anchor_is_its_own_box():
    maps = [(np.zeros((3, 4, 2)) + [99.0, 0.0], np.zeros((3, 4, 4))) for _ in range(6)]
    maps[2][0][1, 3] = [0.0, 99.0]
    np.testing.assert_allclose(s3fd.decode(maps), [[24, -8, 88, 56, 1.0]], atol=1e-9)


def test_wav2lip_sees_other_channels():
    frame = np.array([[[10, 20, 30]]], np.uint8)
    assert s3fd.normalised(frame, s3fd.PYTHON_FAN).tolist() == [[[-74, -97, -113]]]
    assert s3fd.normalised(frame, s3fd.WAV2LIP).tolist() == [[[-94, -97, -93]]]
    assert s3fd.normalised(frame, s3fd.SYNCNET).tolist() == [[[-113, -97, -74]]]


def test_our_own_file_remembers_the_variant(loaded, tmp_path):
    variant, _, found = loaded
    bias = found["params"][variant.name]["fc7"]["bias"]
    small = {"params": {variant.name: {"fc7": {"bias": bias}}}}
    variables.save(tmp_path / "s3fd.npz", small)
    again = s3fd.load(tmp_path / "s3fd.npz")
    assert s3fd.variant_of(again) is variant


def test_another_state_dict_is_refused(loaded):
    variant, twin, _ = loaded
    state = {key: value.numpy() for key, value in twin.state_dict().items()}
    key = "conv4_3_norm.weight" if variant.name == "python_fan" else "L2Norm4_3.weight"
    assert len(state) == 2 * (13 + 2 + 4 + 12) + 3
    with pytest.raises(ValueError, match=key):
        s3fd.convert({k: v for k, v in state.items() if k != key})
    with pytest.raises(ValueError, match="more"):
        s3fd.convert(state | {"more": np.zeros(1)})
    with pytest.raises(ValueError, match=r"\(256,\)"):
        s3fd.convert(state | {key.replace("4_3", "3_3"): np.zeros(3)})
    with pytest.raises(ValueError, match="S3FD"):
        s3fd.variant_of({"params": {"lips": {}}})


def test_wrong_pictures_are_refused():
    weights = {"params": {"syncnet": {}}}
    with pytest.raises(ValueError, match="uint8 RGB"):
        s3fd.detect(weights, np.zeros((200, 200, 3)))
    with pytest.raises(ValueError, match="128 or more"):
        s3fd.detect(weights, np.zeros((200, 100, 3), np.uint8))
