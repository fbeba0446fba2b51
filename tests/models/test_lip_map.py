"""The linear map from the prior's lips to landmarks, and guide frames that move along it."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fg3dgs_jax import geometry
from fg3dgs_jax.clip import processed
from fg3dgs_jax.clip.landmarks import GUIDES
from fg3dgs_jax.config.defaults import Data, Guides
from fg3dgs_jax.models import lip_map
from fg3dgs_jax.training import batches
from fg3dgs_jax.types import Camera

FRAMES = 300
LIPS = [GUIDES.index(p) for p in lip_map.POINTS]
UPPER, LOWER, RIGHT, LEFT = (lip_map.POINTS.index(p) for p in (13, 14, 61, 291))
RNG = np.random.default_rng(0)
EYES = 0.09  # metres between the outer corners


def face():
    """Guides [G, 3] with eyes 9 cm apart."""
    guides = RNG.uniform(-0.03, 0.03, (len(GUIDES), 3)).astype(np.float32)
    guides[GUIDES.index(33)], guides[GUIDES.index(263)] = (-EYES / 2, 0, 0), (EYES / 2, 0, 0)
    return guides


def cameras(count):
    angle = np.linspace(-0.2, 0.2, count)
    pose = np.tile(np.eye(4, dtype=np.float32), (count, 1, 1))
    pose[:, 0, 0] = pose[:, 2, 2] = np.cos(angle)
    pose[:, 0, 2], pose[:, 2, 0] = np.sin(angle), -np.sin(angle)
    pose[:, :3, 3] = (0.02, -0.01, 0.9)
    one = jnp.ones(count)
    return Camera(jnp.asarray(pose), 600 * one, 600 * one, 128 * one, 128 * one)


def moves_of(opening, width):
    """[T, P, 2] metres of a mouth whose lower lip falls and whose corners part."""
    moves = np.zeros((len(opening), len(lip_map.POINTS), 2), np.float32)
    moves[:, LOWER, 1] = opening
    moves[:, RIGHT, 0], moves[:, LEFT, 0] = -width / 2, width / 2
    return moves


def test_displacements_undo_the_projection():
    guides, camera = jnp.asarray(face()), cameras(7)
    moves = jnp.asarray(RNG.uniform(-0.01, 0.01, (7, len(lip_map.POINTS), 2)), jnp.float32)
    places = jnp.broadcast_to(guides, (7, *guides.shape)).at[:, jnp.array(LIPS), :2].add(moves)
    pixels = jax.vmap(geometry.project_points)(places, camera)
    found = lip_map.displacements(pixels, guides, camera)
    np.testing.assert_allclose(found, moves, atol=2e-6)
    still = jax.vmap(geometry.project_points)(jnp.broadcast_to(guides, places.shape), camera)
    again = jax.vmap(lip_map.shifted, (0, None, 0, 0))(still, guides, camera, moves)
    np.testing.assert_allclose(again, pixels, atol=1e-2)


@pytest.mark.parametrize("late", [-3, 0, 2])
def test_the_map_finds_how_late_a_clips_sound_is(late):
    sound = RNG.normal(size=(FRAMES, 1, 5)).astype(np.float32)
    opening, width = 0.004 * sound[:, 0, 0], 0.003 * sound[:, 0, 1]
    audio = np.roll(sound, late, axis=0)
    fitted = lip_map.fit(
        audio, np.arange(20, FRAMES - 20), moves_of(opening, width)[20:-20], face()
    )
    assert lip_map.OFFSETS[int(fitted.window)] == late
    opens = fitted.slopes[:, LOWER, 1] - fitted.slopes[:, UPPER, 1]
    assert abs(float(opens[0])) > 10 * float(jnp.abs(opens[1:]).max())


def test_where_the_clip_does_not_tell_the_mouth_moves_as_mouths_do():
    """The features are noise to this clip: only what is common to all people remains."""
    audio = RNG.normal(size=(FRAMES, 1, 5)).astype(np.float32)
    opening, width = RNG.normal(size=(2, FRAMES)) * 0.004
    fitted = lip_map.fit(audio, np.arange(FRAMES), moves_of(opening, width), face())
    opens = np.asarray(fitted.slopes[:, LOWER, 1] - fitted.slopes[:, UPPER, 1])
    widens = np.asarray(fitted.slopes[:, LEFT, 0] - fitted.slopes[:, RIGHT, 0])
    keeps = lip_map.PENALTY / (1 + lip_map.PENALTY)  # of what the map leans on
    common = keeps * lip_map.COMMON_GAIN * lip_map.GAIN * EYES * np.array(lip_map.DEVIATIONS)
    np.testing.assert_allclose([opens[0], widens[1]], common, rtol=0.25)
    assert np.abs(opens[1:]).max() < 0.25 * opens[0]
    assert np.abs(np.delete(widens, 1)).max() < 0.25 * widens[1]


def test_lips_that_never_move_give_a_map_of_numbers():
    audio = RNG.normal(size=(FRAMES, 1, 3)).astype(np.float32)
    fitted = lip_map.fit(audio, np.arange(FRAMES), 0 * moves_of(*np.ones((2, FRAMES))), face())
    assert np.isfinite(fitted.slopes).all() and not np.asarray(fitted.slopes).any()


def with_lips(folder, copy):
    """The painted clip on the device, its sound the opening itself."""
    clip = processed.load_clip(shutil.copytree(folder, copy / "clip"))
    opening = clip.mouth_openings()
    lips = np.stack([opening, np.cos(np.arange(len(opening))), 0.1 * opening], 1)
    np.save(clip.path / "audio_lips.npy", lips[:, None].astype(np.float32))
    return batches.device_clip(clip, Data(audio_extractor="lips", expression=("AU01", "AU45")))


def test_guide_frames_move_the_lips_with_the_sound(folder, tmp_path):
    device = with_lips(folder, tmp_path)
    leads = device.sound_to_lips
    rule = Guides(frames=16, audio_noise=1.0)
    frames, lids = batches.guide_frames(jax.random.key(0), device, rule)
    plain = jax.vmap(lambda i: batches.take(device, i))(frames.index)
    off = frames.conditions.audio - plain.conditions.audio
    np.testing.assert_allclose(off, jnp.broadcast_to(off[:, :1], off.shape), atol=1e-5)
    assert float(off.std()) > 0.3
    moved = np.asarray(frames.guide_pixels - plain.guide_pixels)
    rest = np.setdiff1d(np.arange(len(GUIDES)), LIPS)
    np.testing.assert_allclose(moved[:, rest], 0, atol=1e-4)
    lower = LIPS[LOWER]
    down = jnp.einsum("bk,k->b", off[:, 0, 0], leads.slopes[:, LOWER, 1])
    distance = device.world_to_camera[0, 2, 3] + device.guides[lower, 2]
    np.testing.assert_allclose(
        moved[:, lower, 1], down * device.intrinsics[1] / distance, atol=0.02
    )
    assert np.corrcoef(moved[:, lower, 1], off[:, 0, 0, 0])[0, 1] > 0.9
    np.testing.assert_array_equal(lids.audio, np.roll(frames.conditions.audio, 1, axis=0))


def test_without_noise_frames_stay_as_they_are(folder, tmp_path):
    device = with_lips(folder, tmp_path)
    frames, _ = batches.guide_frames(jax.random.key(0), device, Guides(audio_noise=0.0))
    plain = jax.vmap(lambda i: batches.take(device, i))(frames.index)
    np.testing.assert_array_equal(frames.conditions.audio, plain.conditions.audio)
    np.testing.assert_allclose(frames.guide_pixels, plain.guide_pixels, atol=1e-5)


def test_other_features_have_no_map(folder):
    device = batches.device_clip(processed.load_clip(folder), Data(expression=("AU45",)))
    assert device.sound_to_lips is None
