"""SyncTalk's audio-visual encoder: a torch twin, the published windows by a slow loop."""

import jax
import numpy as np
import pytest

from fg3dgs_jax.experts.audio import ave
from fg3dgs_jax.media import mel

# in, out, kernel, stride, padding, residual: the published table, written down once more
_BLOCKS = [
    (1, 32, 3, 1, 1, 0),
    *[(32, 32, 3, 1, 1, 1)] * 2,
    (32, 64, 3, (3, 1), 1, 0),
    *[(64, 64, 3, 1, 1, 1)] * 2,
    (64, 128, 3, 3, 1, 0),
    *[(128, 128, 3, 1, 1, 1)] * 2,
    (128, 256, 3, (3, 2), 1, 0),
    (256, 256, 3, 1, 1, 1),
    (256, 512, 3, 1, 0, 0),
    (512, 512, 1, 1, 0, 0),
]


def _torch_encoder():
    """The encoder in torch, every parameter and statistic away from its default."""
    from tests import torch_twins

    blocks = [torch_twins.SyncBlock(*row) for row in _BLOCKS]
    return torch_twins.randomise(torch_twins.nn.Sequential(*blocks), scale=1.0)


def _sound(seconds, seed=0):
    rng, time = np.random.default_rng(seed), np.arange(int(seconds * 16_000)) / 16_000
    voice = np.sin(2 * np.pi * (200 * time + 300 * time**2)) + 0.3 * rng.normal(size=len(time))
    return (6000 * voice * np.sin(np.pi * 3 * time) ** 2).astype(np.int16)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """(torch's encoder, the path of its state dict)."""
    torch = pytest.importorskip("torch")
    encoder = _torch_encoder()
    path = tmp_path_factory.mktemp("ave") / "audio_visual_encoder.pth"
    torch.save(encoder.state_dict(), path)
    return encoder, path


def test_rows_equal_torch_window_by_window(published):
    torch = pytest.importorskip("torch")
    encoder, path = published
    variables = ave.load(path)
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == 2_812_672
    samples = _sound(0.91)
    columns = mel.wav2lip_columns(samples)  # [F, 80]
    expected = []
    for i in range(int((len(columns) - 16) / 80.0 * 25.0) + 2):
        start = int(80.0 * (i / 25.0))
        part = columns[start : start + 16]
        part = columns[-16:] if len(part) < 16 else part
        with torch.no_grad():
            expected.append(encoder(torch.tensor(part.T[None, None].copy()))[0, :, 0, 0].numpy())
    expected = np.array(expected[:1] * 2 + expected + expected[-1:] * 2)
    found = ave.features(variables, samples)
    assert found.shape == (len(expected), 1, 512) and found.dtype == np.float32
    assert expected.std(0).max() > 1e-2
    np.testing.assert_allclose(found[:, 0], expected, rtol=0, atol=1e-5 * expected.max())
    longer = ave.features(variables, samples, num_frames=len(expected) + 3)
    np.testing.assert_array_equal(longer[: len(expected)], found)
    assert (longer[len(expected) :] == found[-1]).all()
    np.testing.assert_array_equal(ave.features(variables, samples, num_frames=5), found[:5])


def test_published_counts():
    """13.305 s: 1065 mel columns, 329 windows, 333 rows."""
    assert len(mel.wav2lip_columns(np.zeros(212_885, np.int16))) == 1065
    assert ave.num_windows(1065) == 329 == len(ave.mel_windows(np.zeros((1065, 80))))
    assert ave.mel_windows(np.zeros((3, 80))).shape == (2, 80, 16)


def test_another_state_dict_is_refused(published):
    encoder, _ = published
    state = {key: value.numpy() for key, value in encoder.state_dict().items()}
    assert len(state) == 91
    key = "4.conv_block.1.running_var"
    with pytest.raises(ValueError, match=key):
        ave.convert({k: v for k, v in state.items() if k != key})
    with pytest.raises(ValueError, match=r"13\.conv_block"):
        ave.convert(state | {"13.conv_block.0.weight": np.zeros(1)})
    with pytest.raises(ValueError, match=r"\[B, 80, 16\]"):
        ave.encode({}, np.zeros((1, 16, 80)))
