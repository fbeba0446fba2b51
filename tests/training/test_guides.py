"""Landmarks that lead the motion nets."""

import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax import geometry
from fg3dgs_jax.avatar import draw
from fg3dgs_jax.clip import landmarks, processed
from fg3dgs_jax.config.defaults import Data
from fg3dgs_jax.config.settings import fall
from fg3dgs_jax.training import batches, first_gaussians, guides
from fg3dgs_jax.types import GaussianDeltas
from tests.painted import small


def test_lids_follow_their_own_conditions(folder):
    device = batches.device_clip(processed.load_clip(folder), Data(expression=("AU01", "AU45")))
    device = device._replace(expression_scale=jnp.array([2.0, 2.0]))
    frames, lids = batches.guide_frames(jax.random.key(0), device, small(folder).guides)
    heard, told = frames.conditions.audio, device.expression[frames.index]
    np.testing.assert_array_equal(lids.audio, np.roll(heard, 1, axis=0))
    np.testing.assert_array_equal(frames.conditions.expression, told)
    off = lids.expression - told
    assert not off[:, 1].any() and 0.3 < off[:, 0].std() < 3.0  # half of 2

    loudness = jnp.linspace(-0.02, 0.02, len(frames.index))
    audio = jnp.broadcast_to(loudness[:, None, None, None], heard.shape)
    lid = np.isin(np.array(landmarks.GUIDES), landmarks.RIGHT_EYE + landmarks.LEFT_EYE)
    follow = jnp.where(lid, jnp.roll(loudness, 1)[:, None], loudness[:, None])  # [B, P]
    moved = frames.guides + follow[..., None] * jnp.array([1.0, 0.0, 0.0])
    pixels = jax.vmap(geometry.project_points)(moved, frames.camera)
    frames = frames._replace(
        conditions=frames.conditions._replace(audio=audio), guide_pixels=pixels
    )
    lids = lids._replace(audio=jnp.roll(audio, 1, axis=0))

    class Louder:  # moves every point to the right by what it hears
        def apply(self, _, means, conditions):
            right = jnp.array([1.0, 0.0, 0.0]) * conditions.audio.mean()
            return GaussianDeltas(jnp.broadcast_to(right, means.shape)), None

    for rows in (slice(None), slice(40), slice(40, None)):
        assert guides.guides_loss(Louder(), None, rows, frames, lids) < 1e-6
    wrong = frames._replace(guide_pixels=jnp.roll(pixels, 1, axis=0))
    assert guides.guides_loss(Louder(), None, slice(None), wrong, lids) > 1e-3


def test_guides_teach_the_lips_to_open_with_the_sound(folder):
    """Landmarks alone, no picture: the face's net learns which sounds part the painted lips."""
    config = small(folder)
    clip = processed.load_clip(folder)
    device = batches.device_clip(clip, config.data)
    nets = draw.make_nets(config)
    config.warm_up.steps, config.warm_up.rate = 600, fall(1e-3, 1e-4)
    config.guides.audio_noise = 0.1
    config.moves = False  # so that init_regions leaves the net as it starts
    regions, _ = first_gaussians.init_regions(jax.random.key(0), clip, device, config, nets)
    motion = regions["face"].motion
    rows = slice(None)
    learnt = guides.learn_from_guides(jax.random.key(1), nets["face"], motion, rows, device, config)
    lower = landmarks.GUIDES.index(14)

    @jax.jit
    @jax.vmap
    def opening(index):
        batch = batches.take(device, index)
        deltas, _ = nets["face"].apply(learnt, batch.guides, batch.conditions)
        return geometry.project_points(batch.guides + deltas.means, batch.camera)[lower, 1]

    train_frames = jnp.array(clip.split("train"))
    found = opening(train_frames)
    truth = device.guide_pixels[train_frames, lower, 1]
    assert np.corrcoef(found, truth)[0, 1] > 0.9 and np.std(found) > 0.5 * np.std(truth)
    assert (learnt["statistics"]["audio"]["mean"] == motion["statistics"]["audio"]["mean"]).all()
