"""Our lip-sync expert looks where the mouth is, hears what it should, and teaches only pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fg3dgs_jax.lipsync import expert as expert_lib
from fg3dgs_jax.weights import variables

RNG = np.random.default_rng(0)
embed_mouths, embed_sound = jax.jit(expert_lib.embed_mouths), jax.jit(expert_lib.embed_sound)


@pytest.fixture(scope="module")
def expert():
    found = expert_lib.init(jax.random.key(1), np.full(80, -0.3), np.full(80, 0.4))
    return found | {"calibration": jnp.array([3.0, -0.5])}


def points(count=40):
    """Landmarks of a head in 200 px: eyes, nose, and lips that open and close."""
    found = np.full((count, 478, 2), 100.0)
    found[:, [33, 263, 168, 2]] = (70, 80), (130, 80), (100, 80), (100, 115)
    found[:, 14, 1] = 140 + 10 * np.sin(np.arange(count))
    return found


def test_the_square_lies_on_the_mouth_and_does_not_follow_it():
    boxes = expert_lib.mouth_boxes(points())
    assert np.ptp(boxes, 0).max() < 1e-3
    x0, y0, x1, y1 = boxes[0]
    assert x0 < 80 and x1 > 120 and y0 < 130 and y1 > 155 and abs((x1 - x0) - (y1 - y0)) < 1e-3
    np.testing.assert_allclose(expert_lib.mouth_boxes(3 * points()), 3 * boxes, rtol=1e-5)
    moved = expert_lib.mouth_boxes(points() + np.linspace(0, 20, 40)[:, None, None])
    assert 19 < moved[-1, 0] - moved[0, 0] < 20.1


def test_cut_is_an_area_mean_when_it_shrinks_and_linear_when_it_grows():
    picture = jnp.asarray(RNG.uniform(size=(96, 96, 3)), jnp.float32)
    whole = jnp.array([0.0, 0.0, 96.0, 96.0])
    np.testing.assert_allclose(expert_lib.cut(picture, whole, 96), picture, atol=1e-6)
    small = expert_lib.cut(picture, whole, 48)
    oracle = jax.image.resize(picture, (48, 48, 3), "linear", antialias=True)
    np.testing.assert_allclose(small, oracle, atol=1e-5)
    ramp = jnp.broadcast_to(jnp.arange(96.0)[:, None, None], (96, 96, 1))
    part = expert_lib.cut(ramp, jnp.array([10.0, 20.0, 34.0, 44.0]), 48)
    np.testing.assert_allclose(part[:, 5, 0], 20 + (np.arange(48) + 0.5) / 2 - 0.5, atol=1e-4)
    beyond = expert_lib.cut(ramp, jnp.array([-40.0, -40.0, -8.0, -8.0]))
    np.testing.assert_allclose(beyond, 0.0, atol=1e-6)  # the border goes on


def test_light_and_colour_of_a_frame_do_not_matter():
    mouths = RNG.uniform(0.2, 0.8, size=(2, 48, 48, 3)).astype(np.float32)
    a, b = expert_lib.standardise(mouths), expert_lib.standardise(0.5 * mouths + 0.2)
    np.testing.assert_allclose(a.mean((1, 2)), 0.0, atol=1e-5)
    assert np.abs(a - b).max() < 0.25 * np.abs(a).max()


def test_embeddings_are_unit_vectors_and_windows_are_independent(expert):
    frames = RNG.uniform(size=(1, 8, 64, 64, 3)).astype(np.float32)
    boxes = np.tile(np.float32([8, 8, 56, 56]), (1, 8, 1))
    seen = embed_mouths(expert, frames, boxes)
    assert seen.shape == (1, 4, 64)
    np.testing.assert_allclose(jnp.linalg.norm(seen, axis=-1), 1.0, atol=1e-5)
    alone = embed_mouths(expert, frames[:, 2:7], boxes[:, 2:7])
    np.testing.assert_allclose(alone[:, 0], seen[:, 2], atol=1e-5)
    windows = RNG.uniform(-1, 1, size=(3, 16, 80)).astype(np.float32)
    heard = embed_sound(expert, windows)
    np.testing.assert_allclose(jnp.linalg.norm(heard, axis=-1), 1.0, atol=1e-5)
    np.testing.assert_allclose(embed_sound(expert, windows[1]), heard[1], atol=1e-5)


def test_the_loss_teaches_the_mouth_in_the_picture_and_nothing_else(expert):
    frames = jnp.asarray(RNG.uniform(size=(2, 5, 64, 64, 3)), jnp.float32)
    boxes = jnp.tile(jnp.array([20.0, 30.0, 44.0, 54.0]), (2, 5, 1))
    sound = embed_sound(expert, RNG.uniform(-1, 1, size=(2, 16, 80)))

    def loss(e, f):
        return expert_lib.sync_loss(e, f, boxes, sound)

    to_expert, to_frames = jax.jit(jax.grad(loss, (0, 1)))(expert, frames)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(to_expert))
    inside = np.zeros((64, 64), bool)
    inside[30:54, 20:44] = True
    near = np.zeros((64, 64), bool)
    near[29:55, 19:45] = True  # bilinear
    size = np.abs(to_frames).sum((0, 1, 4))
    assert np.isfinite(to_frames).all() and (size[inside] > 0).mean() > 0.9
    assert not size[~near].any()
    cosines = jnp.sum(embed_mouths(expert, frames, boxes)[:, 0] * sound, -1)
    expected = -np.log(expert_lib.probability(expert, cosines)).mean()
    np.testing.assert_allclose(loss(expert, frames), expected, rtol=1e-5)


def test_probability_follows_the_calibration(expert):
    found = expert_lib.probability(expert, jnp.array([-1.0, 0.5 / 3.0, 1.0]))
    np.testing.assert_allclose(
        found, [1 / (1 + np.exp(3.5)), 0.5, 1 / (1 + np.exp(-2.5))], rtol=1e-5
    )


def test_a_trained_expert_comes_back_and_others_are_refused(expert, tmp_path):
    path = tmp_path / "sync_expert.npz"
    expert_lib.save(path, expert)
    back = expert_lib.load(path)
    windows = RNG.uniform(-1, 1, size=(2, 16, 80)).astype(np.float32)
    np.testing.assert_array_equal(embed_sound(back, windows), embed_sound(expert, windows))
    variables.save(tmp_path / "other.npz", {k: v for k, v in expert.items() if k != "bands"})
    with pytest.raises(
        ValueError, match=r"does not fit at bands/deviation, bands/mean.*lipsync fit"
    ):
        expert_lib.load(tmp_path / "other.npz")
    with pytest.raises(ValueError, match=r"is not a trained expert.*lipsync fit"):
        expert_lib.load(tmp_path / "nothing.npz")


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((1, 4, 8, 8, 3), np.float32), "S >= 5"),
        (np.zeros((1, 5, 8, 8, 3), np.uint8), "divide by 255"),
    ],
)
def test_wrong_pictures_are_refused(expert, frames, message):
    with pytest.raises(ValueError, match=message):
        expert_lib.embed_mouths(expert, frames, np.zeros((1, frames.shape[1], 4), np.float32))


def test_wrong_sound_is_refused(expert):
    with pytest.raises(ValueError, match=r"expected \[\.\.\., 16, 80\]"):
        expert_lib.embed_sound(expert, np.zeros((3, 80, 16), np.float32))
