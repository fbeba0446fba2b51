"""SyncNet v2: torch twins of both towers, MFCC step by step, LSE-C and LSE-D by a slow loop."""

import math

import cv2
import jax
import numpy as np
import pytest

from fg3dgs_jax.experts.lips import syncnet


def _torch_network():
    """SyncNet v2 in torch, every parameter and statistic away from its default."""
    from tests import torch_twins

    torch = torch_twins.torch
    nn = torch.nn

    def block(kind, *sizes, **options):
        norm = {nn.Conv2d: nn.BatchNorm2d, nn.Conv3d: nn.BatchNorm3d}[kind]
        return [kind(*sizes, **options), norm(sizes[1]), nn.ReLU()]

    def head():
        layers = [nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024)]
        return nn.Sequential(*layers)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.netcnnaud = nn.Sequential(
                *block(nn.Conv2d, 1, 64, 3, padding=1),
                nn.MaxPool2d(1, 1),
                *block(nn.Conv2d, 64, 192, 3, padding=1),
                nn.MaxPool2d(3, (1, 2)),
                *block(nn.Conv2d, 192, 384, 3, padding=1),
                *block(nn.Conv2d, 384, 256, 3, padding=1),
                *block(nn.Conv2d, 256, 256, 3, padding=1),
                nn.MaxPool2d(3, 2),
                *block(nn.Conv2d, 256, 512, (5, 4)),
            )
            flat = {"padding": (0, 1, 1)}
            self.netcnnlip = nn.Sequential(
                *block(nn.Conv3d, 3, 96, (5, 7, 7), stride=(1, 2, 2)),
                nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
                *block(nn.Conv3d, 96, 256, (1, 5, 5), stride=(1, 2, 2), **flat),
                nn.MaxPool3d((1, 3, 3), (1, 2, 2), **flat),
                *block(nn.Conv3d, 256, 256, (1, 3, 3), **flat),
                *block(nn.Conv3d, 256, 256, (1, 3, 3), **flat),
                *block(nn.Conv3d, 256, 256, (1, 3, 3), **flat),
                nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
                *block(nn.Conv3d, 256, 512, (1, 6, 6)),
            )
            self.netfcaud, self.netfclip = head(), head()

        def forward(self, lips, sound):
            return (
                self.netfclip(self.netcnnlip(lips).flatten(1)),
                self.netfcaud(self.netcnnaud(sound).flatten(1)),
            )

    return torch_twins.randomise(Network(), gain=2.0, scale=1.0)


@pytest.fixture(scope="module")
def network():
    return _torch_network()


@pytest.fixture(scope="module")
def state(network):
    return {key: value.numpy() for key, value in network.state_dict().items()}


@pytest.fixture(scope="module")
def variables(state):
    return syncnet.convert(state)


def _sound(seconds, seed=0):
    rng, time = np.random.default_rng(seed), np.arange(int(seconds * 16_000)) / 16_000
    voice = np.sin(2 * np.pi * (200 * time + 300 * time**2)) + 0.3 * rng.normal(size=len(time))
    return (6000 * voice * np.sin(np.pi * 3 * time) ** 2).astype(np.int16)


def test_the_checkpoint_has_102_arrays_and_13_million_parameters(state, variables):
    assert len(state) == 102
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == 13_631_616


def test_a_clip_is_embedded_as_torch_does(network, variables):
    """Pictures and sound of seven windows in batches of three, through every step but the score."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (12, 28, 28, 3), np.uint8)
    frames = coarse.repeat(8, 1).repeat(8, 2)
    samples = _sound(12 / 25 + 0.03)
    lips, sound = syncnet.embed_clip(variables, frames, samples, batch=3)
    bgr = torch.tensor(frames[..., ::-1].astype(np.float32)).permute(3, 0, 1, 2)
    rows = torch.tensor(syncnet.mfcc(samples).T, dtype=torch.float32)
    with torch.no_grad():
        expected = network(
            torch.stack([bgr[:, v : v + 5] for v in range(7)]),
            torch.stack([rows[None, :, 4 * v : 4 * v + 20] for v in range(7)]),
        )
    for found, theirs in zip((lips, sound), expected, strict=True):
        theirs = theirs.numpy()
        assert found.shape == (7, 1024) and found.dtype == np.float32
        assert theirs.std(0).mean() > 0.02 * np.abs(theirs).mean()  # windows are told apart
        np.testing.assert_allclose(found, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())


def test_as_many_windows_as_the_protocol_has():
    assert syncnet.num_windows(100, 100 * 640) == 95
    assert syncnet.num_windows(100, 50 * 640 - 1) == 44
    assert syncnet.num_windows(5, 10**6) == 0 and syncnet.num_windows(0, 0) == 0
    assert syncnet.num_windows(6, 6 * 640) == 1
    for frames in range(6, 40):  # the sound of the counted frames always holds the windows
        rows = syncnet.mfcc(np.ones(frames * 640, np.int16))
        windows = syncnet.mfcc_windows(rows, frames - 5)
        np.testing.assert_array_equal(windows[-1], rows[4 * (frames - 6) :][:20].T.astype("f"))


def _slow_lse(lips, sound):
    """The protocol of `calc_pdist` and its caller, one distance at a time."""
    means = []
    for o in range(31):
        total = 0.0
        for v in range(len(lips)):
            at = v + o - 15
            other = sound[at] if 0 <= at < len(sound) else np.zeros_like(sound[0])
            total += math.sqrt(
                sum((a - b + 1e-6) ** 2 for a, b in zip(lips[v], other, strict=True))
            )
        means.append(total / len(lips))
    middle = sorted(means)[15]
    return min(means), middle - min(means), 15 - means.index(min(means)), means


@pytest.mark.parametrize("count", [1, 9, 40])
def test_lse_equals_the_slow_loop(count):
    rng = np.random.default_rng(count)
    lips, sound = rng.normal(size=(2, count, 24)).astype(np.float32)
    lse_d, lse_c, offset, distances = _slow_lse(lips.astype(float), sound.astype(float))
    found = syncnet.lse(lips, sound)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-12)
    np.testing.assert_allclose((found.lse_d, found.lse_c), (lse_d, lse_c), rtol=1e-9)
    assert found.offset == offset


@pytest.mark.parametrize("late", [-15, -4, 0, 3, 15])
def test_lse_finds_a_known_shift(late):
    """Sound `late` frames behind its picture: best at that shift, offset with the sign turned."""
    events = np.random.default_rng(5).normal(size=(230, 32))
    found = syncnet.lse(events[15:215], events[15 - late : 215 - late])
    assert found.offset == -late and found.distances.argmin() == 15 + late
    # The rows that the shift pushes out of the clip meet zeros, the others themselves.
    outside = events[15:215][200 - late :] if late > 0 else events[15:215][:-late]
    expected = (np.linalg.norm(outside, axis=1).sum() + (200 - abs(late)) * 1e-6 * 32**0.5) / 200
    np.testing.assert_allclose(found.lse_d, expected, rtol=1e-5)
    assert found.lse_c > 5


def _slow_crop(frames, boxes):
    """The steps of the protocol, with SciPy's median filter."""
    medfilt = pytest.importorskip("scipy.signal").medfilt
    sizes = medfilt([max(y1 - y0, x1 - x0) / 2 for x0, y0, x1, y1 in boxes], 13)
    ys = medfilt([(y0 + y1) / 2 for _, y0, _, y1 in boxes], 13)
    xs = medfilt([(x0 + x1) / 2 for x0, _, x1, _ in boxes], 13)
    out = []
    for frame, s, y, x in zip(frames, sizes, ys, xs, strict=True):
        pad = int(s * 1.8)
        grey = np.full((frame.shape[0] + 2 * pad, frame.shape[1] + 2 * pad, 3), 110, np.uint8)
        grey[pad : pad + frame.shape[0], pad : pad + frame.shape[1]] = frame
        top, left = int(y + pad - s), int(x + pad - s * 1.4)
        face = grey[top : int(y + pad + s * 1.8), left : int(x + pad + s * 1.4)]
        out.append(cv2.resize(face, (224, 224)))
    return np.stack(out)


@pytest.mark.parametrize("count", [13, 30])
def test_crops_equal_the_protocol(count):
    rng = np.random.default_rng(7)
    frames = rng.integers(0, 256, (count, 120, 150, 3), np.uint8)
    start = np.array([30.0, 25.0]) + rng.normal(size=(count, 2)).cumsum(0)
    boxes = np.concatenate([start, start + [64, 81] + rng.normal(size=(count, 2)) * 5], 1)
    boxes[count // 2] += [-9, 4, 30, 20]  # one bad detection
    found = syncnet.crop_track(frames, boxes)
    assert found.dtype == np.uint8 and (found == 110).any()  # the border is seen
    np.testing.assert_array_equal(found, _slow_crop(frames, boxes))


def test_impossible_tracks_are_refused():
    frames, box = np.zeros((8, 60, 60, 3), np.uint8), [10, 10, 40, 50]
    assert syncnet.crop_track(frames[:7], [box] * 7).shape == (7, 224, 224, 3)
    with pytest.raises(ValueError, match="7 or more"):
        syncnet.crop_track(frames[:6], [box] * 6)
    with pytest.raises(ValueError, match=r"boxes \(7, 4\)"):
        syncnet.crop_track(frames, [box] * 7)
    with pytest.raises(ValueError, match="below 1 px"):
        syncnet.crop_track(frames, [box] * 7 + [[40, 10, 10, 50]])
    with pytest.raises(ValueError, match="outside its picture"):
        syncnet.crop_track(frames, [[500, 10, 530, 50]] * 8)


def test_a_track_is_scored_from_its_embeddings(monkeypatch):
    lips, sound = np.random.default_rng(6).normal(size=(2, 8, 16))
    seen = []

    def embed_clip(*arguments):
        seen.append(arguments)
        return lips, sound

    monkeypatch.setattr(syncnet, "embed_clip", embed_clip)
    found = syncnet.score_track("variables", "frames", "samples")
    assert seen == [("variables", "frames", "samples")]
    assert found.lse_d == syncnet.lse(lips, sound).lse_d


@pytest.mark.parametrize("zipped", [True, False])
def test_the_published_file_is_read_from_disk(network, state, tmp_path, zipped):
    """A bare state dict, in either of torch's containers."""
    torch = pytest.importorskip("torch")
    path = tmp_path / "syncnet_v2.model"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=zipped)
    found = syncnet.load(path)
    path.unlink()
    jax.tree.map(np.testing.assert_array_equal, found, syncnet.convert(state))
    coarse = np.random.default_rng(2).integers(0, 256, (3, 5, 28, 28, 3), np.uint8)
    faces = coarse.repeat(8, 2).repeat(8, 3)
    rows = syncnet.mfcc_windows(syncnet.mfcc(_sound(0.5)), 3)
    with torch.no_grad():
        bgr = torch.tensor(faces[..., ::-1].astype(np.float32)).permute(0, 4, 1, 2, 3)
        expected = network(bgr, torch.tensor(rows)[:, None])
    ours = syncnet._embed_lips(found, faces), syncnet._embed_sound(found, rows)
    for embedding, theirs in zip(ours, expected, strict=True):
        theirs = theirs.numpy()
        assert theirs.std(0).mean() > 0.02 * np.abs(theirs).mean()
        np.testing.assert_allclose(embedding, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())


def test_another_state_dict_is_refused(state):
    key = "netfclip.1.running_mean"
    with pytest.raises(ValueError, match=key):
        syncnet.convert({k: v for k, v in state.items() if k != key})
    with pytest.raises(ValueError, match=r"netcnnaud\.21\.weight"):
        syncnet.convert(state | {"netcnnaud.21.weight": np.zeros(1)})
    with pytest.raises(ValueError, match=r"\(96, 3, 5, 7, 7\)"):
        syncnet.convert(state | {"netcnnlip.0.weight": np.zeros((96, 3, 7, 7, 5))})


def test_wrong_inputs_are_refused():
    with pytest.raises(ValueError, match="int16"):
        syncnet.mfcc(np.zeros(4000, np.float32))
    with pytest.raises(ValueError, match=r"\[B, 13, 20\]"):
        syncnet.embed_sound({}, np.zeros((1, 20, 13)))
    with pytest.raises(ValueError, match=r"\[B, 5, 224, 224, 3\]"):
        syncnet.embed_lips({}, np.zeros((1, 3, 5, 224, 224)))
    with pytest.raises(ValueError, match=r"\[T, 224, 224, 3\]"):
        syncnet.embed_clip({}, np.zeros((9, 96, 96, 3), np.uint8), np.zeros(9000, np.int16))
    with pytest.raises(ValueError, match="float64"):
        syncnet.embed_clip({}, np.zeros((9, 224, 224, 3)), np.zeros(9000, np.int16))
    with pytest.raises(ValueError, match="six frames"):
        syncnet.embed_clip({}, np.zeros((5, 224, 224, 3), np.uint8), np.zeros(9000, np.int16))
    with pytest.raises(ValueError, match="24 MFCC rows, found 23"):
        syncnet.mfcc_windows(np.zeros((23, 13)), 2)
    with pytest.raises(ValueError, match="two equal"):
        syncnet.lse(np.zeros((3, 4)), np.zeros((4, 4)))
