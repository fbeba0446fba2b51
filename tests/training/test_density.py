"""Density control: what is added, split, pruned, and what waits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fg3dgs_jax import native
from fg3dgs_jax.config import Config
from fg3dgs_jax.config.defaults import Density, Population
from fg3dgs_jax.models import gaussians as gaussians_lib
from fg3dgs_jax.rasterizer.sh import SH_BAND_0
from fg3dgs_jax.training import density
from fg3dgs_jax.types import REGIONS

RULES = {
    "face": Density(split_scale=0.01, max_scale=0.1, min_opacity=(0.05, 0.3), grad_threshold=1.0),
    "mouth": Density(split_scale=0.01, max_scale=0.1, min_opacity=(0.05, 0.1), grad_threshold=5.0),
}


def scene(num=4, capacity=8, scale=0.005, opacity=0.5):
    points = np.random.default_rng(0).uniform(-0.1, 0.1, (num, 3))
    gaussians, alive = gaussians_lib.init_gaussians_from_points(
        points, np.full((num, 3), 0.5), capacity, 1
    )
    gaussians = gaussians.replace(
        raw_scales=jnp.full((capacity, 3), float(np.log(np.expm1(scale)))),
        logit_opacities=jnp.full(capacity, float(np.log(opacity / (1 - opacity)))),
    )
    adam = optax.scale_by_adam().init(gaussians)
    ones = jax.tree.map(jnp.ones_like, gaussians)
    return gaussians, optax.ScaleByAdamState(adam.count, ones, ones), alive


def control(gaussians, moments, alive, gradient, progress=0.0, greens=True, region="face"):
    stats = density.Stats(jnp.asarray(gradient, jnp.float32) * 2, jnp.full(len(gradient), 2.0))
    key = jax.random.key(1)
    slots = density.Slots(gaussians, moments, alive, stats)
    slots, report = density.control(key, slots, RULES[region], progress, greens)
    assert not any(map(np.any, slots.stats))  # they start anew
    return *slots[:3], report


def test_small_gaussians_with_large_gradients_are_cloned_into_dead_slots():
    before, moments, alive = scene()
    after, moments, alive, report = control(before, moments, alive, [0, 2, 0, 0, 9, 9, 9, 9])
    assert report == {"added": 1, "pruned": 0, "waiting": 0}
    np.testing.assert_array_equal(alive, [1, 1, 1, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(after.means[4], before.means[1])
    np.testing.assert_array_equal(after.means[:4], before.means[:4])
    assert not moments.mu.means[4].any() and moments.mu.means[1].all()


def test_large_gaussians_are_split_in_two_smaller_ones():
    before, moments, alive = scene(scale=0.04)
    after, _, alive, _ = control(before, moments, alive, [2, 0, 0, 0, 0, 0, 0, 0])
    scales = jax.nn.softplus(after.raw_scales)
    np.testing.assert_allclose(scales[jnp.array([0, 4])], 0.04 / 1.6, rtol=1e-4)
    np.testing.assert_allclose(scales[1:4], 0.04, rtol=1e-4)
    assert alive.sum() == 5 and not np.allclose(after.means[0], before.means[0])


def test_more_candidates_than_slots_the_largest_gradients_first():
    before, moments, alive = scene(num=6)
    after, _, alive, report = control(before, moments, alive, [2, 3, 4, 5, 6, 7, 0, 0])
    assert alive.all() and report["added"] == 2 and report["waiting"] == 4
    np.testing.assert_array_equal(after.means[6:], before.means[jnp.array([5, 4])])


@pytest.mark.parametrize("what", ["faint", "huge", "green"])
def test_prunes(what):
    gaussians, moments, alive = scene(opacity=0.2)
    if what == "faint":
        faint = gaussians.logit_opacities.at[2].set(-5.0)
        gaussians = gaussians.replace(logit_opacities=faint)
    if what == "huge":
        gaussians = gaussians.replace(raw_scales=gaussians.raw_scales.at[2].set(0.0))
    if what == "green":
        color = (np.array([0.0, 1.0, 0.0]) - 0.5) / SH_BAND_0
        gaussians = gaussians.replace(sh=gaussians.sh.at[2, 0].set(color))
    _, _, alive, report = control(gaussians, moments, alive, np.zeros(8))
    np.testing.assert_array_equal(alive, [1, 1, 0, 1, 0, 0, 0, 0])
    assert report["pruned"] == 1


def test_the_opacity_floor_rises_over_the_stage():
    gaussians, moments, alive = scene(opacity=0.2)
    assert control(gaussians, moments, alive, np.zeros(8), 0.0)[2].sum() == 4
    assert control(gaussians, moments, alive, np.zeros(8), 1.0)[2].sum() == 0


def test_each_region_has_its_own_floor_and_threshold():
    gaussians, moments, alive = scene(opacity=0.2)
    _, _, alive, report = control(
        gaussians, moments, alive, [2, 9, 0, 0, 0, 0, 0, 0], 1.0, region="mouth"
    )
    assert alive.sum() == 5 and report["added"] == 1 and report["pruned"] == 0


def test_growing_changes_nothing_that_is_alive():
    gaussians, moments, alive = scene()
    bigger, mask = density.grow(gaussians, alive, 16)
    np.testing.assert_array_equal(bigger.means[:8], gaussians.means)
    assert bigger.sh.shape == (16, 4, 3) and mask.sum() == alive.sum()
    assert density.grow(moments, alive, 16)[0].count == moments.count


def test_the_statistic_is_in_ndc_units_and_counts_only_what_was_seen():
    stats = density.init_stats(2)
    radii = jnp.array([[3, 3], [0, 0]])
    stats = density.accumulate(stats, jnp.full((2, 2), 1e-3), radii, width=64, height=32)
    np.testing.assert_allclose(stats.gradient, [np.hypot(0.032, 0.016), 0.0], rtol=1e-6)
    np.testing.assert_array_equal(stats.count, [1, 0])


def test_a_cpu_begins_as_the_config_says_and_doubles():
    sizes = Population(capacity=100, max_capacity=450)
    assert density.first_slots(sizes, "face") == 100
    assert [density.more_slots(sizes, n) for n in (100, 200, 400)] == [200, 400, 400]
    assert density.more_slots(Population(capacity=100, max_capacity=None), 100) == 100


def test_a_gpu_begins_large_and_grows_by_four(monkeypatch):
    monkeypatch.setattr(native, "on_gpu", lambda: True)
    sizes = Population(capacity=100, max_capacity=1000)
    assert [density.first_slots(sizes, r) for r in REGIONS] == [400, 200, 200]
    assert [density.more_slots(sizes, n) for n in (100, 200, 400, 1000)] == [400, 800, 800, 1000]
    fixed = Population(capacity=100, max_capacity=None)
    assert density.first_slots(fixed, "face") == density.more_slots(fixed, 100) == 100
    paper = Config().gaussians
    first = {r: density.first_slots(getattr(paper, r), r) for r in REGIONS}
    assert first == {"face": 32_768, "eyes": 8192, "mouth": 16_384}
    assert {density.more_slots(getattr(paper, r), n) for r, n in first.items()} == {65_536, 32_768}
