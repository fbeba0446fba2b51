"""The loss of a frame: its terms and their weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fg3dgs_jax.avatar import draw
from fg3dgs_jax.clip import processed
from fg3dgs_jax.config import Config
from fg3dgs_jax.config.defaults import Data, Losses, Patches
from fg3dgs_jax.training import (
    batches,
    feed,
    first_gaussians,
    losses,
    masks,
    objective,
    parallel,
    step,
)
from tests.painted import SIZE, still


def perceptual(x, y):
    """In place of LPIPS: [K, side, side, 3] twice -> [K]."""
    return jnp.abs(x - y).mean((1, 2, 3))


def test_lips_and_eyes_may_weigh_more_where_layers_are_fused(folder):
    device = batches.device_clip(processed.load_clip(folder), Data(expression=("AU45",)))
    batch, stage = batches.take(device, jnp.int32(3)), Config().stages.fusion
    image = jnp.clip(batch.image + 0.1, 0.0, 1.0)

    def pull(detail):
        stage.losses = Losses(l1=1.0, d_ssim=0.2, detail=detail)

        def loss(x):
            key, progress = jax.random.key(0), jnp.float32(0.0)
            view = losses.View(x, batch.image, batch, key, progress, stage.patches, None)
            return objective.weigh(stage, view)[0]

        return jax.grad(loss)(image)

    more = np.any(pull(0.2) != pull(0.0), -1)
    inside = np.asarray(masks.detail_mask(batch))
    assert inside.any() and not inside.all()
    assert not more[~inside].any() and more[inside].mean() > 0.9


def test_lpips_is_decided_per_dispatch_and_gives_what_a_branch_in_each_step_gave(folder):
    config, clip = still(folder, fusion=4), processed.load_clip(folder)
    stage, config.regions = config.stages.fusion, ("face",)
    stage.losses.lpips, stage.patches = 0.5, Patches(0.5, 16, 2)
    device, nets = batches.device_clip(clip, config.data), draw.make_nets(config)
    regions, alive = first_gaussians.init_regions(jax.random.key(0), clip, device, config, nets)
    state = jax.device_get(step.init_state(regions, alive))
    device, networks = parallel.replicate(device), objective.Networks(perceptual)
    setup = objective.Setup(config, stage, 2, nets, networks, (SIZE, SIZE))
    index = {"face": jnp.array([[[3], [5], [7], [9]]])}

    def run(spans):
        """[steps, 2] the term and the loss, and how many branches the programs have."""
        now, told, branches = parallel.replicate(state), [], 0
        for span in spans:
            made = dataclasses.replace(setup, lpips=span.lpips, controls=span.controls)
            dispatch = step.make_dispatch(made)
            steps = slice(span.start, span.start + span.steps)
            inputs = ({r: x[:, steps] for r, x in index.items()}, None)
            program = dispatch.lower(now, device, inputs)
            branches += program.as_text().count("stablehlo.case")
            now, _, each = program.compile()(now, device, inputs)
            told += zip(each["lpips"][0].tolist(), each["loss"][0].tolist(), strict=True)
        return np.array(told), branches

    found, branches = run(feed.spans(config, stage, 0))
    assert branches == 0
    np.testing.assert_array_equal(found[:, 0] > 0.0, [False, False, True, True])

    def asks_in_each_step(view):
        begun = view.progress >= stage.patches.start
        return jax.lax.cond(begun, lambda: losses.late_lpips(view), lambda: 0.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(losses.TERMS, "lpips", asks_in_each_step)
        wanted, branches = run([feed.Span(0, 4, True, True)])
    assert branches > 0
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
