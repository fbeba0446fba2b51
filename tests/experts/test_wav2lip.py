"""Wav2Lip's expert: torch twins of both towers, OpenCV's crops, librosa's mel, a safe loss."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fg3dgs_jax.experts.lips import wav2lip

# in, out, kernel, stride, padding, residual: the published tables, written down once more
_FACE = [
    (15, 32, 7, 1, 3, 0),
    (32, 64, 5, (1, 2), 1, 0),
    *[(64, 64, 3, 1, 1, 1)] * 2,
    (64, 128, 3, 2, 1, 0),
    *[(128, 128, 3, 1, 1, 1)] * 3,
    (128, 256, 3, 2, 1, 0),
    *[(256, 256, 3, 1, 1, 1)] * 2,
    (256, 512, 3, 2, 1, 0),
    *[(512, 512, 3, 1, 1, 1)] * 2,
    (512, 512, 3, 2, 1, 0),
    (512, 512, 3, 1, 0, 0),
    (512, 512, 1, 1, 0, 0),
]
_SOUND = [
    (1, 32, 3, 1, 1, 0),
    *[(32, 32, 3, 1, 1, 1)] * 2,
    (32, 64, 3, (3, 1), 1, 0),
    *[(64, 64, 3, 1, 1, 1)] * 2,
    (64, 128, 3, 3, 1, 0),
    *[(128, 128, 3, 1, 1, 1)] * 2,
    (128, 256, 3, (3, 2), 1, 0),
    *[(256, 256, 3, 1, 1, 1)] * 2,
    (256, 512, 3, 1, 0, 0),
    (512, 512, 1, 1, 0, 0),
]


def _torch_expert():
    """SyncNet_color in torch, every parameter and statistic away from its default."""
    from tests import torch_twins
    from tests.torch_twins import SyncBlock, torch

    class Expert(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.face_encoder = torch.nn.Sequential(*[SyncBlock(*row) for row in _FACE])
            self.audio_encoder = torch.nn.Sequential(*[SyncBlock(*row) for row in _SOUND])

        def forward(self, mel, faces):
            return [
                torch.nn.functional.normalize(tower(x).flatten(1), dim=1)
                for tower, x in ((self.audio_encoder, mel), (self.face_encoder, faces))
            ]

    return torch_twins.randomise(Expert(), scale=1.0)


@pytest.fixture(scope="module")
def expert():
    return _torch_expert()


@pytest.fixture(scope="module")
def state(expert):
    return {key: value.numpy() for key, value in expert.state_dict().items()}


@pytest.fixture(scope="module")
def variables(state):
    return wav2lip.convert(state)


def _inputs(batch=2, seed=0):
    rng = np.random.default_rng(seed)
    mel = rng.uniform(-4, 4, (batch, 80, 16)).astype(np.float32)
    return mel, rng.random((batch, 48, 96, 15), np.float32)


def test_the_checkpoint_has_217_arrays_and_16_million_parameters(state, variables):
    assert len(state) == 217
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == 16_435_072


def test_embeddings_loss_and_picture_gradients_equal_torch(expert, variables):
    torch = pytest.importorskip("torch")
    mel, faces = _inputs()
    their_faces = torch.tensor(faces.transpose(0, 3, 1, 2)).requires_grad_()
    their_sound, their_embedding = expert(torch.tensor(mel[:, None]), their_faces)
    similarity = torch.nn.functional.cosine_similarity(their_sound, their_embedding)
    their_loss = torch.nn.functional.binary_cross_entropy(similarity, torch.ones(len(mel)))
    their_loss.backward()

    @jax.jit
    def ours(faces, mel):
        sound = wav2lip.embed_sound(variables, mel)
        loss, slope = jax.value_and_grad(wav2lip.sync_loss, 1)(variables, faces, sound)
        return sound, wav2lip.embed_faces(variables, faces), loss, slope

    sound, embedding, loss, slope = jax.tree.map(np.asarray, ours(faces, mel))
    for found, expected in ((sound, their_sound), (embedding, their_embedding)):
        expected = expected.detach().numpy()
        assert found.shape == (2, 512) and found.min() >= 0
        assert np.std(expected, 0).max() > 1e-3  # the two inputs are told apart
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * expected.max())
    np.testing.assert_allclose(loss, their_loss.detach().numpy(), rtol=1e-5)
    expected = their_faces.grad.numpy().transpose(0, 2, 3, 1)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("zipped", [True, False])
def test_the_published_file_is_read_from_disk(expert, state, tmp_path, zipped):
    """As it is published: DataParallel's names, beside Adam's moments and the run's counters."""
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.Adam(list(expert.parameters())[:6], 1e-4)
    for leaf in expert.parameters():
        leaf.grad = None
    sum(p.square().sum() for p in optimizer.param_groups[0]["params"]).backward()
    before = {key: value.clone() for key, value in expert.state_dict().items()}
    optimizer.step()  # makes the moments; the weights are put back
    expert.load_state_dict(before)
    checkpoint = {
        "state_dict": {f"module.{key}": value for key, value in expert.state_dict().items()},
        "optimizer": optimizer.state_dict(),
        "global_step": 1_234_567,
        "global_epoch": 89,
    }
    path = tmp_path / "lipsync_expert.pth"
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    found = wav2lip.load(path)
    path.unlink()
    jax.tree.map(np.testing.assert_array_equal, found, wav2lip.convert(state))
    mel, faces = _inputs(seed=1)
    with torch.no_grad():
        expected = expert(torch.tensor(mel[:, None]), torch.tensor(faces.transpose(0, 3, 1, 2)))
    ours = wav2lip.embed_sound(found, mel), wav2lip.embed_faces(found, faces)
    for embedding, theirs in zip(ours, expected, strict=True):
        theirs = theirs.numpy()
        assert np.std(theirs, 0).max() > 1e-3
        np.testing.assert_allclose(embedding, theirs, rtol=1e-5, atol=1e-5 * theirs.max())


def test_the_expert_gets_no_gradient(variables):
    """In one layer of each kind, to compile little."""
    blocks = wav2lip.SOUND_BLOCKS[-1:]
    tower = {
        kind: {"sound": {"block_0": leaves["sound"]["block_13"]}}
        for kind, leaves in variables.items()
    }
    x = jnp.ones((1, 1, 1, 512))
    slopes = jax.grad(lambda v: wav2lip._embed(v, "sound", blocks, x)[0, 0])(tower)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(slopes))


def test_loss_is_finite_and_never_rises_with_the_cosine():
    cosines = np.linspace(-1, 1, 201).astype(np.float32)
    losses = np.array([wav2lip.loss_of_cosine(c[None]) for c in cosines])
    assert np.isfinite(losses).all() and (np.diff(losses) <= 0).all()
    assert (np.diff(losses[100:]) < 0).all()
    assert losses[-1] == 0.0 and abs(losses[0] - 16.118) < 1e-3 and losses[100] == losses[0]
    slopes = np.asarray(jax.grad(lambda c: wav2lip.loss_of_cosine(c) * 3)(jnp.array([-1.0, 0, 1])))
    assert slopes.tolist() == [0.0, 0.0, -1.0]
    np.testing.assert_allclose(wav2lip.loss_of_cosine(jnp.array([1.0, 0.5])), np.log(2) / 2, 1e-6)


def test_a_dead_embedding_is_zero_with_no_gradient():
    rows = jnp.array([[0.0, 0.0], [3.0, 4.0]])
    np.testing.assert_allclose(wav2lip._unit(rows), [[0, 0], [0.6, 0.8]], atol=1e-7)
    slopes = np.asarray(jax.grad(lambda x: wav2lip._unit(x)[:, 0].sum())(rows))
    np.testing.assert_allclose(slopes, [[0, 0], [0.128, -0.096]], atol=1e-6)


def _cut_by_opencv(frames, boxes):
    """Wav2Lip's own steps on RGB float frames [5, H, W, 3]: slice, resize, BGR, lower half."""
    crops = [
        cv2.resize(frame[y0:y1, x0:x1, ::-1], (96, 96))
        for frame, (x0, y0, x1, y1) in zip(frames, boxes, strict=True)
    ]
    return np.concatenate(crops, 2)[48:]


def test_crops_equal_opencv():
    rng = np.random.default_rng(1)
    frames = rng.random((1, 5, 150, 170, 3), np.float32)
    boxes = [
        (20, 10, 140, 141),
        (0, 0, 170, 150),
        (30, 40, 126, 136),
        (50, 60, 90, 95),
        (1, 2, 4, 5),
    ]
    expected = _cut_by_opencv(frames[0], boxes)
    found = np.asarray(wav2lip.lower_faces(frames, np.array([boxes])))
    assert found.shape == (1, 48, 96, 15)
    np.testing.assert_allclose(found[0], expected, atol=2e-5)


def test_a_box_beyond_the_picture_is_cut_at_its_border():
    frames = np.random.default_rng(2).random((1, 5, 40, 50, 3), np.float32)
    beyond, cut = [[-7, -3, 60, 44]] * 5, [[0, 0, 50, 40]] * 5
    np.testing.assert_allclose(
        wav2lip.lower_faces(frames, np.array([beyond])),
        wav2lip.lower_faces(frames, np.array([cut])),
        atol=1e-6,
    )


def test_picture_gradients_end_at_the_lower_half_of_the_box():
    frames = jnp.full((1, 5, 60, 60, 3), 0.5)
    boxes = np.array([[[10, 10, 50, 50]] * 5])
    weights = np.random.default_rng(3).random((1, 48, 96, 15)).astype(np.float32) + 0.1
    slope = np.array(jax.grad(lambda x: jnp.sum(weights * wav2lip.lower_faces(x, boxes)))(frames))
    assert (slope[:, :, 30:50, 10:50] > 0).all()
    slope[:, :, 29:50, 10:50] = 0  # row 29 is the first one's upper neighbour
    assert not slope.any()


def _sound(seconds, seed=0):
    rng, time = np.random.default_rng(seed), np.arange(int(seconds * 16_000)) / 16_000
    voice = np.sin(2 * np.pi * (200 * time + 300 * time**2)) + 0.3 * rng.normal(size=len(time))
    return (6000 * voice * np.sin(np.pi * 3 * time) ** 2).astype(np.int16)


def test_mel_equals_scipy_and_librosa():
    """Wav2Lip's own steps, each from a library that it may have been written with."""
    scipy_signal, librosa = pytest.importorskip("scipy.signal"), pytest.importorskip("librosa")
    samples = _sound(1.237)
    emphasised = scipy_signal.lfilter([1, -0.97], [1], samples / 32768.0)
    padded = np.pad(emphasised, 400, mode="reflect")
    window = scipy_signal.get_window("hann", 800)  # periodic
    spectra = [
        np.abs(np.fft.rfft(window * padded[200 * k : 200 * k + 800]))
        for k in range(1 + len(samples) // 200)
    ]
    basis = librosa.filters.mel(sr=16_000, n_fft=800, n_mels=80, fmin=55, fmax=7600)
    level = 20 * np.log10(np.maximum(np.exp(-100 / 20 * np.log(10)), basis @ np.transpose(spectra)))
    expected = np.clip(8 * ((level - 20 + 100) / 100) - 4, -4, 4)
    columns = wav2lip.mel_columns(samples)
    assert columns.shape == (1 + len(samples) // 200, 80) and columns.dtype == np.float32
    assert columns.std() > 0.5
    np.testing.assert_allclose(columns, expected.T, atol=1e-4)
    np.testing.assert_array_equal(columns, wav2lip.mel_columns(samples / np.float32(32768)))


def test_digital_silence_is_the_floor():
    assert (wav2lip.mel_columns(np.zeros(3, np.int16)) == -4).all()


@pytest.mark.parametrize("num_columns", [15, 16, 18, 19, 20, 97, 100])
def test_windows_are_those_of_the_slow_loop(num_columns):
    columns = np.random.default_rng(4).random((num_columns, 80)).astype(np.float32)
    expected, t = [], 0
    while int(80.0 * (t / 25.0)) + 16 <= num_columns:
        expected.append(columns[int(80.0 * (t / 25.0)) :][:16].T)
        t += 1
    count = wav2lip.num_windows(1000, num_columns)
    assert count == len(expected)
    found = wav2lip.mel_windows(columns, np.arange(count))
    assert found.shape == (count, 80, 16)
    np.testing.assert_array_equal(found, np.reshape(expected, found.shape))
    with pytest.raises(ValueError, match="num_windows"):
        wav2lip.mel_windows(columns, count)


def test_windows_end_with_the_frames():
    assert wav2lip.num_windows(20, 1000) == 16
    assert wav2lip.num_windows(4, 1000) == 0


def test_another_state_dict_is_refused(state):
    key = "face_encoder.4.conv_block.1.running_var"
    with pytest.raises(ValueError, match=key):
        wav2lip.convert({k: v for k, v in state.items() if k != key})
    with pytest.raises(ValueError, match=r"audio_encoder\.14\.conv_block"):
        wav2lip.convert(state | {"audio_encoder.14.conv_block.0.weight": np.zeros(1)})
    with pytest.raises(ValueError, match=r"\(32, 1, 3, 3\)"):
        wav2lip.convert(state | {"audio_encoder.0.conv_block.0.weight": np.zeros((32, 1, 5, 5))})
    wav2lip.convert({f"module.{k}": v for k, v in state.items() if "num_batches" not in k})


def test_wrong_inputs_are_refused():
    with pytest.raises(ValueError, match=r"\[B, 48, 96, 15\]"):
        wav2lip.embed_faces({}, np.zeros((1, 96, 96, 15)))
    with pytest.raises(ValueError, match=r"\[B, 80, 16\]"):
        wav2lip.embed_sound({}, np.zeros((1, 16, 80)))
    with pytest.raises(ValueError, match=r"\[B, 5, H, W, 3\]"):
        wav2lip.lower_faces(np.zeros((1, 4, 9, 9, 3)), np.zeros((1, 4, 4)))
    with pytest.raises(ValueError, match="divide by 255"):
        wav2lip.lower_faces(np.zeros((1, 5, 9, 9, 3), np.uint8), np.zeros((1, 5, 4)))
    with pytest.raises(ValueError, match="boxes"):
        wav2lip.lower_faces(np.zeros((1, 5, 9, 9, 3)), np.zeros((1, 4)))
    with pytest.raises(ValueError, match="no samples"):
        wav2lip.mel_columns(np.zeros(0, np.int16))
