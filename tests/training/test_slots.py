"""Slots and lists: small where each costs time, large where a new program does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fg3dgs_jax import native
from fg3dgs_jax.avatar.draw import Region
from fg3dgs_jax.config import Config
from fg3dgs_jax.config.defaults import Population
from fg3dgs_jax.rasterizer import default_capacity
from fg3dgs_jax.training import hooks, slots, step
from fg3dgs_jax.types import REGIONS, Gaussians


@pytest.fixture
def on_gpu(monkeypatch):
    monkeypatch.setattr(native, "resolve_backend", lambda: "cuda")


def test_a_cpu_begins_as_the_config_says_and_doubles():
    sizes = Population(capacity=100, max_capacity=450)
    assert slots.first(sizes, "face") == 100
    assert [slots.more(sizes, n) for n in (100, 200, 400)] == [200, 400, 400]
    assert slots.more(Population(capacity=100, max_capacity=None), 100) == 100


def test_a_gpu_begins_large_and_grows_by_four(on_gpu):
    sizes = Population(capacity=100, max_capacity=1000)
    assert [slots.first(sizes, r) for r in REGIONS] == [400, 200, 200]
    assert [slots.more(sizes, n) for n in (100, 200, 400, 1000)] == [400, 800, 800, 1000]
    fixed = Population(capacity=100, max_capacity=None)
    assert slots.first(fixed, "face") == slots.more(fixed, 100) == 100
    paper = Config().gaussians
    first = {r: slots.first(getattr(paper, r), r) for r in REGIONS}
    assert first == {"face": 32_768, "eyes": 8192, "mouth": 16_384}
    assert {slots.more(getattr(paper, r), n) for r, n in first.items()} == {65_536, 32_768}


def test_lists_are_watched_where_they_have_an_end_and_need_not_follow_the_slots(monkeypatch):
    config = Config()
    config.gaussians.eyes.max_capacity = None
    alive = {r: np.ones((1, 64), bool) for r in REGIONS}
    assert slots.monitor_lists(config, alive, 512, 512).capacities == {}
    monkeypatch.setattr(native, "resolve_backend", lambda: "cuda")
    lists = slots.monitor_lists(config, alive, 512, 512).capacities
    assert lists == {"face": 524_288, "eyes": default_capacity(64, 512, 512), "mouth": 524_288}


def test_what_waits_gets_slots_and_everything_else_stays(on_gpu):
    config = Config(regions=("face",))
    config.gaussians.face.max_capacity = 16
    fields = {"means": 3, "quats": 4, "raw_scales": 3}
    arrays = {name: jnp.ones((4, width)) for name, width in fields.items()}
    gaussians = Gaussians(**arrays, logit_opacities=jnp.ones(4), sh=jnp.ones((4, 9, 3)))
    regions = {"face": Region(gaussians, {})}
    state = step.init_state(regions, {"face": jnp.ones(4, bool)})
    state = jax.tree.map(lambda x: x[None], state)
    assert hooks.grow_where_needed(state, {"face/waiting": 0.0}, config) is state
    grown = hooks.grow_where_needed(state, {"face/waiting": 1.0}, config)
    assert grown.alive["face"].shape == (1, 16) and grown.alive["face"].sum() == 4
    shapes = {x.shape[1] for x in jax.tree.leaves(grown.regions["face"].gaussians)}
    assert shapes == {16} and grown.stats["face"].count.shape == (1, 16)
    assert hooks.grow_where_needed(grown, {"face/waiting": 16.0}, config) is grown
