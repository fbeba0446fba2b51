import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fg3dgs_jax.config.defaults import Patches
from fg3dgs_jax.training import losses, masks
from fg3dgs_jax.types import Batch, Camera, GaussianDeltas


def images(height=24, width=31, seed=0):
    rng = np.random.default_rng(seed)
    first = rng.random((height, width, 3))
    return first, np.clip(first + 0.2 * rng.normal(size=first.shape), 0, 1)


def ssim_by_loops(a, b):
    x = np.arange(11) - 5
    line = np.exp(-(x**2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    pad = ((5, 5), (5, 5), (0, 0))
    a_pad, b_pad = np.pad(a, pad), np.pad(b, pad)
    out = np.zeros_like(a)
    for i, j, c in np.ndindex(a.shape):
        p, q = a_pad[i : i + 11, j : j + 11, c], b_pad[i : i + 11, j : j + 11, c]
        mean_p, mean_q = (window * p).sum(), (window * q).sum()
        var_p, var_q = (window * p * p).sum() - mean_p**2, (window * q * q).sum() - mean_q**2
        cov = (window * p * q).sum() - mean_p * mean_q
        out[i, j, c] = (2 * mean_p * mean_q + 1e-4) * (2 * cov + 9e-4)
        out[i, j, c] /= (mean_p**2 + mean_q**2 + 1e-4) * (var_p + var_q + 9e-4)
    return out


def test_ssim_agrees_with_loops_up_to_the_zero_padded_corners():
    a, b = images()
    expected = ssim_by_loops(a, b)
    got = losses.ssim_map(jnp.float32(a), jnp.float32(b))
    np.testing.assert_allclose(got, expected, atol=2e-4)
    np.testing.assert_allclose(got[0, 0], expected[0, 0], atol=1e-5)
    np.testing.assert_allclose(
        losses.d_ssim(jnp.float32(a), jnp.float32(b)), 1 - expected.mean(), atol=1e-5
    )


def test_ssim_properties():
    a, b = (jnp.float32(x) for x in images())
    np.testing.assert_allclose(losses.ssim(a, a), 1.0, atol=1e-6)
    np.testing.assert_allclose(losses.ssim(a, b), losses.ssim(b, a), atol=1e-6)
    both = losses.ssim_map(jnp.stack([a, b]), jnp.stack([b, b]))
    np.testing.assert_allclose(both[0], losses.ssim_map(a, b), atol=1e-5)
    np.testing.assert_allclose(
        jax.vmap(losses.ssim)(jnp.stack([a, b]), jnp.stack([b, b]))[1], 1.0, atol=1e-6
    )


def test_ssim_gradient_agrees_with_differences():
    a, b = images(14, 15)
    direction = np.random.default_rng(1).normal(size=a.shape)
    with jax.enable_x64(True):
        a, b, direction = jnp.array(a), jnp.array(b), jnp.array(direction)
        slope = jnp.vdot(jax.grad(losses.ssim)(a, b), direction)
        ends = [losses.ssim(a + s * 1e-5 * direction, b) for s in (1, -1)]
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-5, rtol=1e-6)


def test_l1_and_psnr():
    a = jnp.zeros((4, 5, 3))
    assert float(losses.l1(a + 0.25, a)) == 0.25
    np.testing.assert_allclose(losses.psnr(a + 0.1, a), 20.0, rtol=1e-5)
    np.testing.assert_allclose(losses.psnr(a, a), 100.0, rtol=1e-5)


def test_masked_means_are_finite_for_empty_masks():
    values = jnp.arange(12.0).reshape(3, 4)
    mask = jnp.zeros((3, 4), bool).at[1, 2].set(True).at[0, 0].set(True)
    assert float(losses.masked_mean(values, mask)) == 3.0
    assert float(losses.masked_mean(jnp.stack([values, values], -1), mask)) == 3.0
    value, grad = jax.value_and_grad(losses.masked_mean)(values, jnp.zeros((3, 4)))
    assert float(value) == 0 and not np.any(np.asarray(grad))
    for inside in (jnp.zeros((3, 4)), jnp.ones((3, 4))):
        value, grad = jax.value_and_grad(losses.alpha_loss)(jnp.full((3, 4), 0.3), inside)
        assert np.isfinite(value) and np.all(np.isfinite(grad))


def test_alpha_loss_is_zero_only_for_the_mask_itself():
    inside = jnp.zeros((4, 4)).at[1:3, 1:3].set(1)
    assert float(losses.alpha_loss(inside, inside)) == 0
    np.testing.assert_allclose(losses.alpha_loss(0.5 * inside, inside), 0.5)
    np.testing.assert_allclose(losses.alpha_loss(jnp.ones((4, 4)), inside), 1.0)


def test_motion_loss_skips_absent_fields_and_dead_slots():
    deltas = GaussianDeltas(means=jnp.array([[1.0, -1, 1], [9, 9, 9]]))
    assert float(losses.motion_loss(deltas)) == 5.0
    assert float(losses.motion_loss(deltas, jnp.array([True, False]))) == 1.0
    deltas = deltas.replace(quats=jnp.full((2, 4), -2.0))
    assert float(losses.motion_loss(deltas, jnp.array([True, False]))) == 3.0


def test_boxes_and_attention():
    box = jnp.array([1, 3, 2, 5])
    mask = masks.box_mask(box, 6, 7)
    expected = np.zeros((6, 7), bool)
    expected[1:3, 2:5] = True
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(masks.box_mask(jnp.stack([box, box]), 6, 7)[1], expected)
    gates = jnp.stack([jnp.full((6, 7), 10.0), jnp.where(mask, 2.0, 0.0)], -1)
    assert float(losses.attention_loss(gates, box, jnp.zeros((6, 7)))) == 2.0
    assert float(losses.attention_loss(gates, box, ~mask)) == 12.0
    assert float(losses.attention_loss(gates, jnp.array([2, 2, 3, 3]), jnp.zeros((6, 7)))) == 0.0


@pytest.mark.parametrize("height, width, side", [(70, 101, 16), (33, 40, 32), (32, 32, 32)])
def test_patches_lie_inside_and_never_overlap(height, width, side):
    covered = np.zeros((height, width), int)
    for seed in range(20):
        corners = np.asarray(losses.patch_corners(jax.random.key(seed), height, width, side, 100))
        counts = np.zeros((height, width), int)
        for row, col in corners:
            assert 0 <= row <= height - side and 0 <= col <= width - side
            counts[row : row + side, col : col + side] += 1
        assert counts.max() == 1
        covered += counts
    inner = covered[height // 4 : -height // 4, width // 4 : -width // 4]
    assert inner.min() > 0  # no pixel is left out for good


def test_patch_loss_compares_the_same_places():
    a, b = (jnp.float32(x) for x in images(50, 60))
    seen = []

    def perceptual(x, y):
        seen.append(x.shape)
        return jnp.abs(x - y).mean((1, 2, 3))

    loss = losses.patch_loss(perceptual, jax.random.key(0), a, b, Patches(0.0, 16, 3))
    assert seen == [(3, 16, 16, 3)]
    assert (
        float(losses.patch_loss(perceptual, jax.random.key(0), a, a, Patches(0.0, 16, 3)))
        == 0
        < float(loss)
    )
    patches = losses.gather_patches(a, jnp.array([[2, 5]]), 16)
    np.testing.assert_array_equal(patches[0], a[2:18, 5:21])
    with pytest.raises(ValueError, match="patch side"):
        losses.patch_corners(jax.random.key(0), 20, 20, 32, 1)


IMAGES = [jnp.float32(x) for x in images(12, 14)]
BOX = jnp.array([2, 6, 3, 9])
INSIDE = masks.box_mask(BOX, 12, 14)
HAIR = jnp.zeros((12, 14), bool).at[:2].set(True)
FRAME = Batch(
    index=None,
    conditions=None,
    image=None,
    background=None,
    lips_box=BOX,
    eyes_box=None,
    camera=Camera(jnp.eye(4).at[2, 3].set(1.0), *jnp.array([90.0, 90.0, 7.0, 6.0])),
    labels=jnp.zeros((12, 14), jnp.uint8),
    guides=jnp.array([[0.0, 0.01, 0.0], [0.02, 0.0, 0.01]]),
    guide_pixels=jnp.array([[6.0, 8.0], [9.5, 5.0]]),
)


def perceptual(x, y):
    return jnp.mean(jnp.square(x - y), (1, 2, 3))


GRADED = {  # a loss as a function of one array, its shape, where it may pull
    "l1": (lambda x: losses.l1(x, IMAGES[1]), (12, 14, 3), None),
    "d_ssim": (lambda x: losses.d_ssim(x, IMAGES[1]), (12, 14, 3), None),
    "detail": (
        lambda x: losses.masked_mean(jnp.abs(x - IMAGES[1]), INSIDE),
        (12, 14, 3),
        INSIDE[..., None],
    ),
    "alpha": (lambda x: losses.alpha_loss(x, INSIDE), (12, 14), None),
    "attention, audio": (
        lambda x: losses.attention_loss(jnp.stack([x, 0 * x], -1), BOX, HAIR),
        (12, 14),
        HAIR,
    ),
    "attention, expression": (
        lambda x: losses.attention_loss(jnp.stack([0 * x, x], -1), BOX, HAIR),
        (12, 14),
        HAIR | INSIDE,
    ),
    "motion": (
        lambda x: losses.motion_loss(GaussianDeltas(x), jnp.array([1.0, 0.0, 1.0])),
        (3, 3),
        jnp.array([[True], [False], [True]]),
    ),
    "guides": (lambda x: losses.guide_loss(0.01 * x, FRAME), (2, 3), None),
    "lpips": (
        lambda x: losses.patch_loss(
            perceptual, jax.random.key(0), x, IMAGES[1], Patches(0.0, 5, 50)
        ),
        (12, 14, 3),
        None,
    ),
}


@pytest.mark.parametrize("name", GRADED)
def test_the_gradient_is_finite_right_and_only_where_it_belongs(name):
    loss, shape, where = GRADED[name]
    rng = np.random.default_rng(3)
    x, along = jnp.float32(rng.random(shape)), jnp.float32(rng.normal(size=shape))
    slope = jax.grad(loss)(x)
    assert np.isfinite(slope).all() and np.any(slope)
    if where is not None:
        where = np.broadcast_to(where, shape)
        assert not np.any(slope[~where]) and np.all(slope[where])
    step = 2e-4  # small enough that few pixels pass the kink of an absolute value
    expected = (loss(x + step * along) - loss(x - step * along)) / (2 * step)
    np.testing.assert_allclose(jnp.vdot(slope, along), expected, rtol=0.05, atol=1e-3)
