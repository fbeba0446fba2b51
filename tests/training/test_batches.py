"""Frames as a step takes them: which ones, their sound, and noise."""

import jax
import jax.numpy as jnp
import numpy as np

from configs import quickstart
from fg3dgs_jax.clip import processed
from fg3dgs_jax.config.defaults import Data, Noise
from fg3dgs_jax.training import batches
from tests.painted import FRAMES, small


def test_sampling_follows_the_window_and_never_leaves_the_train_split(folder):
    clip = processed.load_clip(folder)
    device = batches.device_clip(clip, Data(expression=("AU45",)))
    rule = quickstart.get_config().stages.motion.sampling["mouth"]
    picked = {
        int(batches.sample_frames(jax.random.key(k), 0, device, "mouth", rule, 0.0, 1)[0])
        for k in range(60)
    }
    openings = clip.mouth_openings()
    train_frames = clip.split("train")
    widest = {int(i) for i in train_frames if openings[i] == 3}
    assert picked == widest
    everything = {
        int(batches.sample_frames(jax.random.key(k), 1, device, "face", None, 0.0, 1)[0])
        for k in range(200)
    }
    assert everything == set(map(int, train_frames))


def test_audio_windows_are_zero_outside_the_clip(folder):
    device = batches.device_clip(processed.load_clip(folder), Data(expression=("AU45",)))
    device = device._replace(audio=jnp.ones_like(device.audio))
    first = batches.take(device, jnp.int32(0)).conditions.audio
    last = batches.take(device, jnp.int32(FRAMES - 1)).conditions.audio
    np.testing.assert_array_equal(first[:, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(last[:, 0, 0], [1, 1, 1, 1, 1, 0, 0, 0])


def test_noise_is_measured_in_deviations_of_the_train_split(folder):
    clip = processed.load_clip(folder)
    device = batches.device_clip(clip, Data(expression=("AU45",)))
    clean = batches.take(device, jnp.int32(9)).conditions.audio
    noisy = batches.take(device, jnp.int32(9), jax.random.key(0), Noise(audio=2.0)).conditions.audio
    expected = 2.0 * np.asarray(device.audio)[clip.split("train")].std()
    np.testing.assert_allclose((noisy - clean).std(), expected, rtol=0.1)


def test_jitter_moves_the_blink_and_nothing_else(folder):
    device = batches.device_clip(processed.load_clip(folder), Data(expression=("AU01", "AU45")))
    clean = batches.take(device, jnp.int32(9)).conditions
    off = [
        batches.take(device, jnp.int32(9), jax.random.key(k), Noise(blink=0.05)).conditions
        for k in range(50)
    ]
    np.testing.assert_array_equal(off[0].audio, clean.audio)
    moved = np.stack([o.expression - clean.expression for o in off])
    assert not moved[:, 0].any() and 0.03 < np.abs(moved[:, 1]).max() <= 0.05 + 1e-6


def test_one_guide_frame_in_each_step_blinks(folder):
    config = small(folder)
    clip = processed.load_clip(folder)
    device = batches.device_clip(clip, Data(expression=("AU45",)))
    blinks = np.zeros(FRAMES, np.float32)
    blinks[5] = 1.0
    device = device._replace(scores={**device.scores, "blink": jnp.asarray(blinks)})
    first, others = [], []
    for k in range(60):
        index = batches.guide_frames(jax.random.key(k), device, config.guides)[0].index
        assert set(map(int, index)) <= set(map(int, clip.split("train")))
        first.append(int(index[0]))
        others += map(int, index[1:])
    assert 0.5 < np.mean(np.array(first) == 5) < 0.9  # deeper than half: 2 of 3
    assert len(set(first)) > 5 and np.mean(np.array(others) == 5) < 0.2
