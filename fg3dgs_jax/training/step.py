"""The step: one for every stage and region. K steps run in one dispatch under `lax.scan`."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from fg3dgs_jax.config import Stage
from fg3dgs_jax.training import batches, density, objective, parallel, rates
from fg3dgs_jax.training.objective import Setup
from fg3dgs_jax.types import REGIONS, Array


class TrainState(struct.PyTreeNode):
    """Everything that a step reads and changes."""

    step: Array  # [] int32, steps done in this stage
    regions: Any  # {region: avatar.Region}
    alive: Any  # {region: [N] bool}
    opt_state: Any  # see rates.init
    stats: Any  # {region: density.Stats}


class Inputs(struct.PyTreeNode):
    """What one step works on."""

    index: Any  # {region: [batch x window] frame numbers}
    pictures: Any = None  # {region: Pictures of these frames}, where the clip has none


class Row(struct.PyTreeNode):
    """Metrics side by side: a scan writes each of its results by a kernel of its own."""

    values: Array  # [..., M], float32, in which counts are exact up to 16 million
    names: tuple[str, ...] = struct.field(pytree_node=False)

    @classmethod
    def of(cls, metrics: Mapping[str, Array]) -> "Row":
        """A row of scalars."""
        return cls(jnp.stack([jnp.float32(x) for x in metrics.values()]), tuple(metrics))

    def columns(self) -> dict[str, Array]:
        """{name: [...]}."""
        return {name: self.values[..., i] for i, name in enumerate(self.names)}


def begin_stage(state: TrainState, stage: Stage) -> TrainState:
    """`state` at the start of a stage, at step 0.

    Adam starts afresh, for what is learnt has changed, unless the stage continues with the moments
    of the one before.
    """
    fresh = init_state(state.regions, state.alive)
    return fresh.replace(opt_state=state.opt_state) if stage.continues_adam else fresh


def init_state(regions: Any, alive: Any) -> TrainState:
    """The state before anything was learnt."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        regions=regions,
        alive=alive,
        opt_state=jax.jit(rates.init)(regions),
        stats={r: density.init_stats(alive[r].shape[0]) for r in regions},
    )


def make_train_step(setup: Setup) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """`step(state, clip, inputs) -> (state, metrics)`, to be run inside `parallel.pmap`."""
    config, stage = setup.config, setup.stage
    noise = stage.noise if setup.moves else type(stage.noise)()

    def loss_fn(regions, probes, state, clip, inputs, key):
        regions = rates.freeze(regions, rates.table(regions, stage.rates))

        def one(index, pictures, probes, key):
            key, key_noise = jax.random.split(key)
            with jax.named_scope("batch_preparation"):
                frames = {
                    r: batches.take(clip, i, key_noise, noise, pictures and pictures[r])
                    for r, i in index.items()
                }
            return objective.frame_loss(
                setup, regions, state.alive, probes, frames, key, state.step
            )

        key, key_guides = jax.random.split(key)
        keys = parallel.frame_keys(key, setup.frames)
        loss, drawn = jax.vmap(one)(inputs.index, inputs.pictures, probes, keys)
        view = objective.StepView(setup, regions, clip, key_guides, drawn.windows, inputs.index)
        more, metrics = objective.step_loss(view)
        return loss.mean() + more, (drawn.metrics | metrics, drawn.radii)

    def train_step(state: TrainState, clip, inputs: Inputs):
        _, key = batches.step_keys(config.seed, setup.number, state.step)
        table = rates.table(state.regions, stage.rates)
        probes = {r: jnp.zeros((setup.frames, len(state.alive[r]), 2)) for r in config.regions}

        value_and_grad = jax.value_and_grad(loss_fn, argnums=(0, 1), has_aux=True)
        (loss, (metrics, radii)), (grads, v_means2d) = value_and_grad(
            state.regions, probes, state, clip, inputs, key
        )
        grads = parallel.mean(grads)
        with jax.named_scope("optimizer"):
            progress = state.step / stage.steps
            regions, opt_state = rates.update(
                grads, state.opt_state, state.regions, table, progress
            )
        stats = state.stats
        if stage.density is not None:
            stats = jax.tree.map(jnp.add, stats, frame_statistics(setup, v_means2d, radii))
        metrics = summary(parallel.gather({"loss": loss, **metrics}))
        state = state.replace(
            step=state.step + 1, regions=regions, opt_state=opt_state, stats=stats
        )
        return state, metrics

    return train_step


def frame_statistics(setup: Setup, v_means2d: Any, radii: Any) -> dict[str, density.Stats]:
    """What density control is to remember of a step's frames, on all devices.

    Args:
      setup: of the stage.
      v_means2d: {region: [frames, N, 2]}, the probes' gradients.
      radii: {region: [frames, N, 2]} px.
    """
    height, width = setup.size

    def one(v, r):
        return density.accumulate(density.init_stats(len(v)), v, r, width, height)

    # The loss is a mean over the batch; the statistic is per frame, as in 3DGS.
    seen = {
        r: jax.vmap(one)(v_means2d[r] * setup.config.batch, radii[r]) for r in setup.config.regions
    }
    return jax.tree.map(lambda x: parallel.total(x.sum(0)), seen)


def summary(metrics: Mapping[str, Array]) -> dict[str, Array]:
    """Metrics of many frames or steps as scalars: means, but the most pairs and all overflows."""
    ways = {"isects": jnp.max, "overflow": jnp.sum}
    return {k: ways.get(k.rpartition("/")[2], jnp.mean)(v) for k, v in metrics.items()}


def control_density(setup: Setup, state: TrainState) -> tuple[TrainState, dict[str, Array]]:
    """The state after density control of every region that is due, and what it did."""
    config, rules = setup.config, setup.stage.density
    if rules is None or not setup.controls:
        return state, {}
    progress = state.step / setup.stage.steps
    key = jax.random.fold_in(jax.random.key(config.seed + 1), setup.number)
    key = jax.random.fold_in(key, state.step)
    regions, alive, stats = dict(state.regions), dict(state.alive), dict(state.stats)
    moments, report = dict(state.opt_state["gaussians"]), {}
    for r in config.regions:
        due = (state.step >= rules[r].start) & (progress <= rules[r].stop)
        before = density.Slots(regions[r].gaussians, moments[r], alive[r], stats[r])
        key_r = jax.random.fold_in(key, REGIONS.index(r))
        after, counts = density.control(
            key_r, before, rules[r], progress, config.key_color is not None
        )
        slots = jax.tree.map(lambda new, old, due=due: jnp.where(due, new, old), after, before)
        regions[r] = regions[r]._replace(gaussians=slots.gaussians)
        moments[r], alive[r], stats[r] = slots.moments, slots.alive, slots.stats
        report |= {f"{r}/{k}": jnp.where(due, v, 0) for k, v in counts.items()}
    opt_state = dict(state.opt_state, gaussians=moments)
    return state.replace(regions=regions, alive=alive, opt_state=opt_state, stats=stats), report


def make_dispatch(setup: Setup) -> Callable[..., tuple[TrainState, dict, dict]]:
    """`dispatch(state, clip, inputs) -> (state, metrics, metrics of each step [K])`.

    Many steps, then density control if `setup.controls`. All carry a leading device dimension
    (`parallel.replicate`), `inputs` (frame numbers and pictures, see `feed.py`) then one of steps;
    the state is donated.
    """
    step = make_train_step(setup)

    def run(state, clip, inputs):
        def one(state, now):
            state, metrics = step(state, clip, Inputs(*now))
            return state, Row.of(metrics)

        state, rows = jax.lax.scan(one, state, inputs)
        each = rows.columns()
        state, report = control_density(setup, state)
        counts = {f"{r}/gaussians": state.alive[r].sum() for r in setup.config.regions}
        return state, {**summary(each), **report, **counts}, each

    return parallel.pmap(run, donate_argnums=0)
