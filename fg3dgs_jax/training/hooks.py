"""What happens between the dispatches of a run: each hook looks at the run and does one thing."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fg3dgs_jax import native, rasterizer
from fg3dgs_jax.avatar import draw, store
from fg3dgs_jax.clip import processed
from fg3dgs_jax.config import Config
from fg3dgs_jax.system import stop
from fg3dgs_jax.training import batches, checkpoint, density, finite, parallel
from fg3dgs_jax.training import log as log_lib
from fg3dgs_jax.training.step import TrainState

WAITING_SHARE = 0.1  # slots are added when more than this share of it waits for a slot
SAMPLES = 3  # test frames of a sample picture


@dataclasses.dataclass
class Run:
    """A run as it goes on; hooks may change its state."""

    config: Config
    workdir: pathlib.Path
    clip: processed.Clip
    on_device: batches.DeviceClip
    state: TrainState
    lists: rasterizer.CapacityMonitor
    done: int = 0  # steps of all stages
    seconds: float = 0.0  # trained
    saved: int | None = None  # total step of the newest checkpoint
    stage: str = ""
    resolved: dict[str, Any] | None = None  # the config as the workdir keeps it
    fingerprint: str | None = None  # of the clip

    def on_host(self) -> TrainState:
        """The state in host memory."""
        return jax.device_get(parallel.first(self.state))


@dataclasses.dataclass(frozen=True)
class Dispatch:
    """One dispatch that has just been done."""

    steps: int
    seconds: float
    metrics: dict[str, float]
    each: Any  # {name: [devices, K]} metrics of each step, on the devices
    done: int  # steps of all stages, these included
    last: bool  # of its stage

    def due(self, every: int) -> bool:
        """Whether a multiple of `every` lies in its steps, or it is its stage's last."""
        return self.last or crossed(self.done, self.steps, every)


Hook = Callable[[Run, Dispatch], None]


def crossed(done: int, steps: int, every: int) -> bool:
    """Whether a multiple of `every` lies in the last `steps` of `done`."""
    return done // every > (done - steps) // every


def stop_if_not_finite(run: Run, dispatch: Dispatch) -> None:
    """Raises a FloatingPointError that names stage, step and term of a loss that is not finite."""
    if not np.isfinite(dispatch.metrics["loss"]):
        each = jax.device_get(parallel.first(dispatch.each))
        finite.check_losses(each, run.stage, dispatch.done - dispatch.steps, run.saved)


def show_progress(bar: Any) -> Hook:
    """A hook that moves a progress bar on."""

    def show(run: Run, dispatch: Dispatch) -> None:
        bar.set_description(run.stage, refresh=False)
        bar.set_postfix(loss=f"{dispatch.metrics['loss']:.4f}", refresh=False)
        bar.update(dispatch.steps)

    return show


def write_log(log: log_lib.Log) -> Hook:
    """A hook that writes metrics every `config.log.every` steps."""

    def write(run: Run, dispatch: Dispatch) -> None:
        if dispatch.due(run.config.log.every):
            speed = {"steps_per_second": dispatch.steps / dispatch.seconds}
            log.write(run.done, run.stage, dispatch.metrics | speed)

    return write


def grow(run: Run, dispatch: Dispatch) -> None:
    """Adds slots to a region in which many Gaussians wait for one, up to its limit."""
    run.state = grow_where_needed(run.state, dispatch.metrics, run.config)


def grow_where_needed(state: TrainState, metrics: dict[str, float], config: Config) -> TrainState:
    """The state with more slots where more than `WAITING_SHARE` of them are waited for."""
    capacities = {}
    for r, alive in state.alive.items():
        now = alive.shape[-1]
        if metrics.get(f"{r}/waiting", 0.0) > WAITING_SHARE * now:
            capacity = density.more_slots(getattr(config.gaussians, r), now)
            if capacity > now:
                capacities[r] = capacity
    if not capacities:
        return state
    state = jax.device_get(parallel.first(state))
    regions, alive, stats = dict(state.regions), dict(state.alive), dict(state.stats)
    moments = dict(state.opt_state["gaussians"])
    for r, capacity in capacities.items():
        moments[r], _ = density.grow(moments[r], alive[r], capacity)
        gaussians, mask = density.grow(regions[r].gaussians, alive[r], capacity)
        regions[r], alive[r] = regions[r]._replace(gaussians=gaussians), mask
        stats[r] = density.init_stats(capacity)
    opt_state = dict(state.opt_state, gaussians=moments)
    return parallel.replicate(
        state.replace(regions=regions, alive=alive, opt_state=opt_state, stats=stats)
    )


def save(checkpoints: checkpoint.Checkpoints) -> Hook:
    """A hook that writes a checkpoint and the avatar every `config.log.checkpoint_every` steps."""

    def write(run: Run, dispatch: Dispatch) -> None:
        if dispatch.due(run.config.log.checkpoint_every):
            save_now(run, checkpoints)

    return write


def save_now(run: Run, checkpoints: checkpoint.Checkpoints) -> None:
    """Writes a checkpoint and the avatar."""
    state = run.on_host()
    finite.check_state(state, run.stage, run.done, run.saved)
    progress = checkpoint.Progress(run.stage, run.seconds, run.resolved, run.fingerprint)
    checkpoints.save(run.done, state, progress)
    run.saved = run.done
    if parallel.writes():
        store.save(run.workdir, state.regions, state.alive)


def stop_if_asked(request: stop.Request, checkpoints: checkpoint.Checkpoints) -> Hook:
    """A hook that ends the run after a signal, with a checkpoint; the last of the hooks.

    Of several processes one that got the signal ends all, after the same step.
    """

    def end(run: Run, dispatch: Dispatch) -> None:
        del dispatch
        if not parallel.any_process(request.name is not None):
            return
        if run.saved != run.done:
            save_now(run, checkpoints)
        raise stop.Stopped(
            f"stopped by {request.name or 'a signal to another process'} at step {run.done}, with "
            f"a checkpoint in {run.workdir}; the same command goes on from there"
        )

    return end


def draw_samples(config: Config) -> Hook:
    """A hook that writes samples/STEP.png every `config.log.samples_every` steps.

    It shows test frames, one a row. One drawer serves the whole run: it is compiled once for each
    number of slots.
    """
    drawer = draw.Avatar(config, {}, {})

    def write(run: Run, dispatch: Dispatch) -> None:
        if not dispatch.due(run.config.log.samples_every) or not parallel.writes():
            return
        state = parallel.first(run.state)
        drawer.regions, drawer.alive = state.regions, state.alive
        rows = []
        test = run.clip.split("test")
        for i in test[np.linspace(0, len(test) - 1, SAMPLES).astype(int)]:
            batch = batches.take(run.on_device, i, pictures=batches.read_pictures(run.clip, i))
            one = jax.tree.map(lambda x: x[None], batch)
            drawn = drawer.draw(
                one.conditions.audio, one.conditions.expression, one.camera, one.background
            )
            drawn = jax.device_get(jax.tree.map(lambda x: x[0], drawn))
            truth = np.asarray(batch.image)
            rows.append(log_lib.sample_picture(truth, drawn.image, drawn.layers, drawn.alphas))
        log_lib.save_picture(run.workdir / "samples" / f"{run.done:06d}.png", rows)

    return write


def monitor_lists(config: Config, alive: Any, clip: processed.Clip) -> rasterizer.CapacityMonitor:
    """Watches the regions' lists of (tile, Gaussian) pairs on a GPU; a CPU's grow by themselves.

    They are long enough for all the slots that there may be: a longer list is a new program too.
    """
    if not native.on_gpu():
        return rasterizer.CapacityMonitor({})
    most = {
        r: max(getattr(config.gaussians, r).max_capacity or 0, slots.shape[-1])
        for r, slots in alive.items()
    }
    size = clip.width, clip.height
    return rasterizer.CapacityMonitor(
        {r: rasterizer.default_capacity(n, *size) for r, n in most.items()}
    )
