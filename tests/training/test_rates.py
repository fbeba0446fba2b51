"""One table of rates: what a stage moves, what it freezes, and that nothing is forgotten."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fg3dgs_jax.avatar import draw
from fg3dgs_jax.clip import processed
from fg3dgs_jax.config import Config
from fg3dgs_jax.config.settings import Schedule, constant, fall
from fg3dgs_jax.training import batches, first_gaussians, rates, step
from fg3dgs_jax.types import REGIONS
from tests.painted import small

GEOMETRY = ("means", "quats", "raw_scales")


MOVES = {  # the paper's: which fields of the Gaussians, whose nets
    "static": ({(r, f) for r in REGIONS for f in (*GEOMETRY, "logit_opacities", "sh")}, ()),
    "motion": ({(r, f) for r in REGIONS for f in (*GEOMETRY, "logit_opacities", "sh")}, REGIONS),
    "fusion": ({(r, "sh") for r in REGIONS} | {("face", "logit_opacities")}, ()),
    "alignment": ({(r, "sh") for r in REGIONS}, ("mouth",)),
}


@pytest.fixture(scope="module")
def regions(folder):
    config = small(folder)
    clip = processed.load_clip(folder)
    device = batches.device_clip(clip, config.data)
    return first_gaussians.init_regions(
        jax.random.key(0), clip, device, config, draw.make_nets(config)
    )[0]


@pytest.mark.parametrize("name", MOVES)
def test_a_stage_changes_only_what_its_row_names(regions, name):
    stage = getattr(Config().stages, name)
    grads = jax.tree.map(jnp.ones_like, regions)
    table = rates.table(regions, stage.rates)
    after, _ = jax.jit(lambda *now: rates.update(*now, table, jnp.float32(0.5)))(
        grads, rates.init(regions), regions
    )
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), after, regions)
    fields, nets = MOVES[name]
    assert fields == {
        (r, f)
        for r in REGIONS
        for f in moved[r].gaussians.__dataclass_fields__
        if getattr(moved[r].gaussians, f)
    }
    for r in REGIONS:
        assert set(jax.tree.leaves(moved[r].motion["params"])) == {r in nets}
        assert not any(jax.tree.leaves(moved[r].motion.get("statistics", {})))  # of the sound


def test_a_stage_starts_adam_afresh_or_goes_on_as_its_row_says(regions):
    stages = Config().stages
    alive = {r: jnp.ones(v.gaussians.means.shape[0], bool) for r, v in regions.items()}
    grads, state = jax.tree.map(jnp.ones_like, regions), step.init_state(regions, alive)
    learnt, opt_state = rates.update(
        grads, state.opt_state, regions, rates.table(regions, stages.fusion.rates), 0.5
    )
    state = state.replace(step=jnp.int32(7), regions=learnt, opt_state=opt_state)
    assert [name for name, stage in stages.items() if stage.continues_adam] == ["alignment"]

    begun = step.begin_stage(state, stages.alignment)  # the fusion's second half
    assert begun.step == 0 and begun.opt_state is opt_state and begun.regions is learnt
    assert begun.opt_state["gaussians"]["face"].count == 1
    assert np.all(begun.opt_state["gaussians"]["face"].mu.sh)
    for r in REGIONS:  # the paper's fusion froze the nets: theirs have not begun
        net = begun.opt_state["motion"][r]
        assert net.count == 0 and not any(map(np.any, jax.tree.leaves(net)))

    begun = step.begin_stage(state, stages.motion)
    assert begun.step == 0 and begun.regions is learnt
    assert not any(map(np.any, jax.tree.leaves(begun.opt_state)))


def test_statistics_are_of_the_train_splits_sound(folder, regions):
    clip = processed.load_clip(folder)
    heard = np.asarray(clip.audio_features("mel"))[clip.split("train")]
    mean = regions["mouth"].motion["statistics"]["audio"]["mean"]
    np.testing.assert_allclose(mean, heard.mean((0, 1)), atol=1e-6)


def test_a_frozen_leaf_gets_no_gradient_and_the_others_the_same(folder):
    config = small(folder)
    clip = processed.load_clip(folder)
    device = batches.device_clip(clip, config.data)
    nets = draw.make_nets(config)
    regions, alive = first_gaussians.init_regions(jax.random.key(0), clip, device, config, nets)
    batch = batches.take(device, jnp.int32(3))
    fusion = Config().stages.fusion  # the paper's: colours, opacities of the face
    table = rates.table(regions, fusion.rates)

    def loss(regions, freeze):
        regions = rates.freeze(regions, table) if freeze else regions
        image, _ = draw.draw(nets, regions, alive, batch.conditions, batch.camera, batch.background)
        return jnp.sum(jnp.square(image - batch.image))

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    frozen, free = gradient(regions, True), gradient(regions, False)
    moves = jax.tree.map(lambda rate: rate.moves, table)
    for move, got, wanted in zip(*map(jax.tree.leaves, (moves, frozen, free)), strict=True):
        if move:
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
        else:
            assert not np.any(got)
    names = {
        (r, f)
        for r in REGIONS
        for f in moves[r].gaussians.__dataclass_fields__
        if getattr(moves[r].gaussians, f)
    }
    assert names == {("face", "logit_opacities")} | {(r, "sh") for r in REGIONS}
    assert np.any(frozen["face"].gaussians.sh) and np.any(free["face"].gaussians.means)


def test_a_parameter_that_no_pattern_covers_is_named(regions):
    table = dict(Config().stages.motion.rates)
    del table[".*/gaussians/quats"]
    with pytest.raises(ValueError, match=r"no learning rate covers .*/gaussians/quats"):
        rates.table(regions, table)


def test_the_first_pattern_that_fits_counts(regions):
    table = rates.table(regions, {"mouth/.*/scales": None, "mouth/.*": constant(0.1), ".*": None})
    assert all(rate.moves for rate in jax.tree.leaves(table["mouth"]))
    assert not any(rate.moves for rate in jax.tree.leaves(table["face"]))


def test_a_schedule_goes_log_linearly_between_its_knots_and_may_jump():
    found = [rates.at(fall(1e-2, 1e-4), jnp.float32(x)) for x in (0.0, 0.25, 0.5, 1.0)]
    np.testing.assert_allclose(found, [1e-2, 10**-2.5, 1e-3, 1e-4], rtol=1e-5)
    jump = Schedule(((0.0, 1.0), (0.5, 0.1), (0.5, 4.0), (1.0, 1.0)))
    found = [rates.at(jump, jnp.float32(x)) for x in (0.0, 0.499999, 0.5, 0.75, 1.0)]
    np.testing.assert_allclose(found, [1.0, 0.1, 4.0, 2.0, 1.0], rtol=1e-4)


def test_the_first_band_of_the_colours_has_a_rate_of_its_own(regions):
    only = {".*/sh/band_0": constant(1.0), ".*": None}
    grads, table = jax.tree.map(jnp.ones_like, regions), rates.table(regions, only)
    after, _ = rates.update(grads, rates.init(regions), regions, table, jnp.float32(0.0))
    moved = np.asarray(after["face"].gaussians.sh - regions["face"].gaussians.sh)
    np.testing.assert_allclose(moved[:, 0], -1.0, rtol=1e-4)
    assert not moved[:, 1:].any()
