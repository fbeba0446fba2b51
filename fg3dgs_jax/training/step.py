"""The step: one for every stage and region. K steps run in one dispatch under `lax.scan`."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from fg3dgs_jax.training import batches, density, objective, optim, parallel
from fg3dgs_jax.training import guides as guides_lib
from fg3dgs_jax.types import REGIONS, Array


class TrainState(struct.PyTreeNode):
    """Everything that a step reads and changes."""

    step: Array  # [] int32, steps done in this stage
    regions: Any  # {region: avatar.Region}
    alive: Any  # {region: [N] bool}
    opt_state: Any  # see optim.init
    stats: Any  # {region: density.Stats}


def begin_stage(state: TrainState, stage) -> TrainState:
    """`state` at the start of a stage, at step 0: Adam starts afresh, for what is learnt has
    changed, unless the row says that it goes on with the moments of the stage before.
    """
    fresh = init_state(state.regions, state.alive)
    return fresh.replace(opt_state=state.opt_state) if stage.keeps_moments else fresh


def init_state(regions, alive) -> TrainState:
    """The state before anything was learnt."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        regions=regions,
        alive=alive,
        opt_state=optim.init(regions),
        stats={r: density.init_stats(alive[r].shape[0]) for r in regions},
    )


def make_train_step(config, stage, stage_number, nets, frozen, clip_size, capacities=None):
    """`step(state, clip, index, pictures=None) -> (state, metrics)`, to be run inside
    `parallel.pmap`.

    `index`, `pictures`: by region, the [batch x window] frames of this device (see `feed.py`).
    `frozen`: stages.Frozen. `capacities`: {region: the rasterizer's isect_capacity}; by default its
    default.
    """
    height, width = clip_size
    drawn = config.batch * stage.window  # frames a step and layer
    moving = stage.moving and config.moves
    noise = (stage.audio_noise, stage.au_jitter) if moving else (0.0, 0.0)
    aligned = stage.window > 1 and frozen.sync is not None

    def loss_fn(regions, probes, state, clip, index, pictures, key, progress):
        regions = optim.freeze(regions, stage)

        def one(index_b, pictures_b, probes_b, key_b):
            key_b, key_noise = jax.random.split(key_b)
            with jax.named_scope("batch_preparation"):
                frames = {
                    r: batches.take(clip, i, key_noise, *noise, pictures_b and pictures_b[r])
                    for r, i in index_b.items()
                }
            return objective.frame_loss(
                config, stage, nets, frozen.perceptual, key_b, state.step, progress,
                regions, state.alive, probes_b, frames, capacities,
            )  # fmt: skip

        key, key_guides = jax.random.split(key)
        keys = parallel.frame_keys(key, drawn)
        loss, images, metrics, radii = jax.vmap(one)(index, pictures, probes, keys)
        loss = loss.mean()
        if aligned:
            windows = [x.reshape(config.batch, stage.window, *x.shape[1:]) for x in images]
            starts = index["face"][:: stage.window]
            sync, ceiling = objective.alignment_loss(frozen.sync, *windows, starts)
            loss = loss + stage.losses.sync * sync  # eq. (16)
            metrics = {**metrics, "sync": sync, "sync_truth": ceiling}
        if moving and stage.losses.guides:
            with jax.named_scope("guides"):
                frames = batches.guide_frames(key_guides, clip, config.guides)
                guides = sum(
                    guides_lib.guides_loss(nets[r], regions[r].motion, rows, *frames)
                    for r, rows in guides_lib.guided(config).items()
                )
            loss, metrics = loss + stage.losses.guides * guides, {**metrics, "guides": guides}
        return loss, (metrics, radii)

    def train_step(state: TrainState, clip, index, pictures=None):
        _, key = batches.step_keys(config.seed, stage_number, state.step)
        progress = state.step / stage.steps
        probes = {r: jnp.zeros((drawn, state.alive[r].shape[0], 2)) for r in config.layers}

        value_and_grad = jax.value_and_grad(loss_fn, argnums=(0, 1), has_aux=True)
        (loss, (metrics, radii)), (grads, v_means2d) = value_and_grad(
            state.regions, probes, state, clip, index, pictures, key, progress
        )
        grads = parallel.mean(grads)
        with jax.named_scope("optimizer"):
            regions, opt_state = optim.update(
                grads, state.opt_state, state.regions, stage, progress
            )

        stats = state.stats
        if stage.density is not None:
            # The loss is a mean over the batch; the statistic is per frame, as in 3DGS.
            seen = {
                r: jax.vmap(functools.partial(density.accumulate, width=width, height=height),
                            in_axes=(None, 0, 0))(
                    density.init_stats(state.alive[r].shape[0]),
                    v_means2d[r] * config.batch, radii[r],
                )
                for r in config.layers
            }  # fmt: skip
            stats = jax.tree.map(lambda s, x: s + parallel.total(x.sum(0)), stats, seen)
        metrics = summary(parallel.gather({"loss": loss, **metrics}))
        state = state.replace(
            step=state.step + 1, regions=regions, opt_state=opt_state, stats=stats
        )
        return state, metrics

    return train_step


def summary(metrics):
    """Metrics of many frames or steps as scalars: means, but the most pairs and all overflows."""
    ways = {"isects": jnp.max, "overflow": jnp.sum}
    return {k: ways.get(k.rpartition("/")[2], jnp.mean)(v) for k, v in metrics.items()}


def make_dispatch(config, stage, stage_number, nets, frozen, clip_size, capacities=None):
    """`dispatch(state, clip, inputs) -> (state, metrics, metrics of each step [K])`: many steps,
    then density control.

    All carry a leading device dimension (`parallel.replicate`), `inputs` (frame numbers and
    pictures, see `feed.py`) then one of steps; the state is donated.
    """
    step = make_train_step(config, stage, stage_number, nets, frozen, clip_size, capacities)

    def control(state):
        if stage.density is None:
            return state, {}
        rule = stage.density
        progress = state.step / stage.steps
        key = jax.random.fold_in(jax.random.key(config.seed + 1), stage_number)
        key = jax.random.fold_in(key, state.step)
        regions, alive, report = dict(state.regions), dict(state.alive), {}
        moments, stats = dict(state.opt_state["gaussians"]), dict(state.stats)
        for r in config.layers:
            due = (state.step >= rule.start) & (progress <= rule.stop[r])
            gaussians, adam, mask, counts = density.control(
                jax.random.fold_in(key, REGIONS.index(r)), regions[r].gaussians, moments[r],
                alive[r], stats[r], rule, r, progress, bool(config.key_color),
            )  # fmt: skip
            keep = functools.partial(
                jax.tree.map, lambda new, old, due=due: jnp.where(due, new, old)
            )
            regions[r] = regions[r]._replace(gaussians=keep(gaussians, regions[r].gaussians))
            moments[r], alive[r] = keep(adam, moments[r]), jnp.where(due, mask, alive[r])
            stats[r] = keep(density.init_stats(len(alive[r])), stats[r])
            report |= {f"{r}/{k}": jnp.where(due, v, 0) for k, v in counts.items()}
        opt_state = dict(state.opt_state, gaussians=moments)
        return state.replace(regions=regions, alive=alive, opt_state=opt_state, stats=stats), report

    def run(state, clip, inputs):
        state, each = jax.lax.scan(lambda s, x: step(s, clip, *x), state, inputs)
        state, report = control(state)
        counts = {f"{r}/gaussians": state.alive[r].sum() for r in config.layers}
        return state, {**summary(each), **report, **counts}, each

    return parallel.pmap(run, donate_argnums=0)
