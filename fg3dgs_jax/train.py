"""Trains an avatar: every stage of a config, on a processed folder.

python -m fg3dgs_jax.train --config configs/obama.py [--workdir runs/obama] [--config.seed=1]

Resumes from the workdir by itself. Writes checkpoints (Orbax), `avatar.npz`, `metrics.jsonl`,
TensorBoard events and sample pictures (truth | render | face | eyes | mouth | error) there.

All devices of the machine share the work; `config.batch` is the frames a step on each of them.
Several processes, on one machine or on many that share the workdir, train one avatar with

    ... --distributed --coordinator HOST:PORT --num_processes 2 --process_id 0    # and 1

or with JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID in the environment; a cluster
that JAX knows (Slurm, Open MPI, TPU pods) needs --distributed only. `--profile` writes traces to
the workdir's `profile/`, for TensorBoard or Perfetto, and prints each stage's time a step.
"""

import contextlib
import functools
import json
import pathlib
import sys
import time

import jax
import numpy as np
from absl import app, flags
from absl import logging as absl_logging
from clu import parameter_overview
from ml_collections import config_flags
from tqdm import tqdm

from fg3dgs_jax import native, rasterizer
from fg3dgs_jax.avatar import draw
from fg3dgs_jax.avatar import store as store_lib
from fg3dgs_jax.clip.open import open_clip
from fg3dgs_jax.experts.image import lpips
from fg3dgs_jax.lipsync import alignment
from fg3dgs_jax.media import video
from fg3dgs_jax.training import (
    batches,
    checkpoint,
    density,
    feed,
    guard,
    masks,
    objective,
    parallel,
    step,
)
from fg3dgs_jax.training import log as log_lib
from fg3dgs_jax.training.first_gaussians import init_regions
from fg3dgs_jax.weights import store

WAITING_SHARE = 0.1  # capacity doubles when more than this share of it waits for a slot


def fit(config, workdir, profile=False):
    """Runs every stage of `config` from where the workdir stands; returns seconds trained.

    `profile`: write traces and print each stage's time a step.

    Raises:
      ValueError: a config, workdir or processed folder that cannot be used.
      FloatingPointError: a loss that is not finite, naming stage, step and term.
    """
    check(config)
    workdir = pathlib.Path(workdir)
    clip = open_clip(config.data.path, config.data.max_side)
    resident = batches.fits(clip, config.data.resident)
    on_device = batches.device_clip(
        clip, config.data.audio_extractor, config.data.expression, masks.region_labels(config),
        resident=False, seconds=config.data.seconds,
    )  # fmt: skip
    checkpoint.claim_workdir(workdir, config, on_device.audio.shape[1:])
    say = print if parallel.writes() else lambda *_, **__: None
    if not resident:
        say("the clip's pictures do not stay on the device: they are read as they are needed")
    nets = draw.make_nets(config)
    frozen = objective.Frozen(load_perceptual(config))
    if config.stages.alignment.steps:
        frozen, on_device = ready_for_alignment(config, frozen, clip, on_device, say)
    saved = checkpoint.Checkpoints(workdir, config.log.keep)
    latest = saved.latest()
    start_config = config.copy_and_resolve_references()
    if latest is not None:  # whose values take the place of those the networks start from
        start_config.warm_up.steps = 0
    regions, alive = init_regions(jax.random.key(config.seed), clip, on_device, start_config, nets)

    counts = {
        r: parameter_overview.count_parameters(v.motion["params"]) for r, v in regions.items()
    }
    say("motion nets:", ", ".join(f"{r} {n:,} parameters" for r, n in counts.items()))

    done, seconds = (0, 0.0) if latest is None else (latest[0], latest[1]["seconds"])
    state = step.init_state(regions, alive)
    if latest is not None:
        state = checkpoint.fill(state, latest[2])
        say(f"resuming {workdir} at step {done} ({latest[1]['stage']})", flush=True)
    last_saved = None if latest is None else done
    log = log_lib.Log(workdir, done, parallel.writes())
    profiler = log_lib.Profile(workdir / "profile") if profile and parallel.writes() else None
    clip_on_devices = parallel.replicate(
        batches.with_pictures(on_device, clip) if resident else on_device
    )
    lists = monitor_lists(state.alive, clip)
    unwatched = contextlib.nullcontext()

    total = sum(stage.steps for stage in config.stages.values())
    with tqdm(
        total=total, initial=done, unit="step", dynamic_ncols=True, disable=not parallel.writes()
    ) as bar:
        start = 0  # the total step at which the stage begins
        for number, (name, stage) in enumerate(stages_in_order(config)):
            if done >= start + stage.steps and done > 0:
                start += stage.steps
                continue
            if done == start:
                state = step.begin_stage(state, stage)
            bar.set_description(name)
            make_dispatch = functools.partial(
                step.make_dispatch, config, stage, number, nets, frozen,
                (clip.height, clip.width),
            )  # fmt: skip
            dispatch = make_dispatch(lists.capacities)
            state = parallel.replicate(state)
            begin = time.perf_counter()
            for steps, inputs in feed.feed(
                config, stage, number, clip, on_device, resident, done - start
            ):
                with profiler.dispatch(name, steps, begin) if profiler else unwatched:
                    state, metrics, each = dispatch(state, clip_on_devices, inputs)
                    metrics = {k: float(v) for k, v in parallel.first(metrics).items()}
                spent = time.perf_counter() - begin
                if not np.isfinite(metrics["loss"]):
                    each = jax.device_get(parallel.first(each))
                    guard.check_losses(each, name, done, last_saved)
                done += steps
                seconds += spent
                bar.update(steps)
                bar.set_postfix(loss=f"{metrics['loss']:.4f}")
                last = done == start + stage.steps
                if last or crossed(done, steps, config.log.every):
                    log.write(done, name, {**metrics, "steps_per_second": steps / spent})
                state = grow_where_needed(state, metrics, config.regions)
                if lists.update({r: metrics[f"{r}/isects"] for r in config.layers}):
                    dispatch = make_dispatch(lists.capacities)
                if last or crossed(done, steps, config.log.checkpoint_every):
                    here = jax.device_get(parallel.first(state))
                    guard.check_state(here, name, done, last_saved)
                    saved.save(done, name, here, seconds)
                    last_saved = done
                    if parallel.writes():
                        store_lib.save(workdir, here.regions, here.alive)
                if last or crossed(done, steps, config.log.samples_every):
                    if parallel.writes():
                        here = parallel.first(state)
                        draw_samples(workdir, config, clip, on_device, here, done)
                begin = time.perf_counter()
            state = jax.device_get(parallel.first(state))
            start += stage.steps
    log.close()
    if parallel.writes():
        store_lib.save(workdir, state.regions, state.alive)
        summary = {"train_seconds": seconds, "steps": done}
        (workdir / "train.json").write_text(json.dumps(summary))
    if profiler:
        profiler.report()
    return seconds


def stages_in_order(config):
    """(name, row) of each stage that has steps, in the order in which they run."""
    rows = [(name, config.stages[name]) for name in ("static", "motion", "fusion", "alignment")]
    return [(name, row) for name, row in rows if row.steps]


def check(config):
    """Refuses settings that cannot work, in one line each."""
    if not config.data.path:
        raise ValueError("config.data.path is empty; expected a processed folder")
    if config.batch < 1 or config.steps_per_dispatch < 1:
        raise ValueError(
            f"batch is {config.batch} and steps_per_dispatch {config.steps_per_dispatch}; "
            "expected 1 or more of each"
        )
    for name, row in config.stages.items():
        if row.steps < (name != "alignment"):
            raise ValueError(f"stages.{name}.steps is {row.steps}; expected 1 or more")
        if config.log.checkpoint_every % config.steps_per_dispatch:
            raise ValueError("log.checkpoint_every must be a multiple of steps_per_dispatch")


def crossed(done, steps, every):
    """Whether a multiple of `every` lies in the last `steps` of `done`."""
    return done // every > (done - steps) // every


def load_perceptual(config):
    """LPIPS as `(x, y) -> [K]`, or None with one line where its weights are not found."""
    rows = [row for _, row in stages_in_order(config)]
    if not any(row.losses.lpips and row.lpips.start < 1.0 for row in rows):
        return None
    path = store.find("lpips_alex")
    if path is None:
        print("LPIPS weights not found: training without the perceptual term of eq. (15)")
        return None
    params = lpips.load(path)
    return lambda x, y: lpips.lpips(params, x, y)


def ready_for_alignment(config, frozen, clip, on_device, say=print):
    """`frozen` with the expert of eq. (16), None where it is not found, and the clip with the
    frames from which five may be drawn.
    """
    path = clip.path / "audio.wav"
    if not path.is_file():
        raise ValueError(f"{path} is missing, which eq. (16) listens to; run preprocess again")
    samples = video.read_wav(path)
    learnt = batches.learnt_frames(clip, config.data.seconds)
    windows = alignment.windows(clip, learnt)
    if not windows.any():
        raise ValueError(
            f"{clip.path} has no five consecutive frames of a face in its train split, which "
            "eq. (16) needs; train without it: --config.stages.alignment.steps=0"
        )
    on_device = on_device._replace(eligible=on_device.eligible | {"windows": windows})
    sync = alignment.load(config.sync_expert, clip, samples)
    if sync.call is None:
        say("no lip-sync expert found: training without eq. (16) (see: lipsync fit)")
        return frozen, on_device
    say(f"eq. (16) listens to {sync.source}")
    return frozen._replace(sync=sync.call), on_device


def grow_where_needed(state, metrics, rows):
    """Doubles the capacity of a region in which many Gaussians wait for a slot, up to its limit."""
    short = [
        r
        for r in state.alive
        if metrics.get(f"{r}/waiting", 0) > WAITING_SHARE * state.alive[r].shape[-1]
        and 2 * state.alive[r].shape[-1] <= rows[r].max_capacity
    ]
    if not short:
        return state
    state = jax.device_get(parallel.first(state))
    regions, alive, stats = dict(state.regions), dict(state.alive), dict(state.stats)
    moments = dict(state.opt_state["gaussians"])
    for r in short:
        capacity = 2 * alive[r].shape[0]
        moments[r], _ = density.grow(moments[r], alive[r], capacity)
        gaussians, mask = density.grow(regions[r].gaussians, alive[r], capacity)
        regions[r], alive[r] = regions[r]._replace(gaussians=gaussians), mask
        stats[r] = density.init_stats(capacity)
    opt_state = dict(state.opt_state, gaussians=moments)
    return parallel.replicate(
        state.replace(regions=regions, alive=alive, opt_state=opt_state, stats=stats)
    )


def monitor_lists(alive, clip):
    """Watches the regions' lists of (tile, Gaussian) pairs on a GPU; a CPU's grow by themselves."""
    if native.resolve_backend() != "cuda":
        return rasterizer.CapacityMonitor({})
    size = clip.width, clip.height
    return rasterizer.CapacityMonitor(
        {r: rasterizer.default_capacity(alive[r].shape[-1], *size) for r in alive}
    )


def draw_samples(workdir, config, clip, on_device, state, done, count=3):
    """Writes samples/STEP.png: test frames, one a row."""
    drawer = draw.Avatar(config, state.regions, state.alive)
    rows = []
    for i in np.linspace(*clip.split("test")[[0, -1]], count).astype(int):
        batch = batches.take(on_device, i, pictures=batches.read_pictures(clip, i))
        one = jax.tree.map(lambda x: x[None], batch)
        drawn = drawer.draw(*one.conditions[:2], one.camera, one.background)
        drawn = jax.device_get(jax.tree.map(lambda x: x[0], drawn))
        rows.append(
            log_lib.sample_picture(np.asarray(batch.image), drawn.image, drawn.layers, drawn.alphas)
        )
    log_lib.save_picture(pathlib.Path(workdir) / "samples" / f"{done:06d}.png", rows)


_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, e.g. configs/obama.py:cpu")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; by default runs/NAME, the config's name"
)
_PROFILE = flags.DEFINE_bool(
    "profile", False, "Write profiler traces to WORKDIR/profile, print each stage's time a step"
)
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "This is one of several processes")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes", lower_bound=1)
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them, from 0", lower_bound=0)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}")
    absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax tells of every file at INFO
    parallel.give_threads()
    config = _CONFIG.value
    workdir = _WORKDIR.value or f"runs/{config.name}"
    try:
        if _DISTRIBUTED.value:
            parallel.connect(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
        seconds = fit(config, workdir, _PROFILE.value)
    except (ValueError, FloatingPointError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    if parallel.writes():
        print(f"trained {workdir} in {seconds:.0f} s")
    parallel.disconnect()
    return 0


def parse_flags(argv):
    """absl's parser; a config or key that does not exist is one line, exit code 2."""
    try:
        rest = flags.FLAGS(argv)
        _ = _CONFIG.value.name  # a file that failed to load only says so when it is read
        return rest
    except (flags.Error, AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        text = str(error).replace("\\n", "\n").replace("\\'", "'")
        lines = [line.strip() for line in text.splitlines()]
        lines = [line for line in lines if line and not line.startswith("Pass --help")]
        # A config file's own error comes last in ml_collections' message, after its traceback.
        told = " ".join(lines if len(lines) < 4 else lines[-1:])
        hint = "expected --config configs/NAME.py[:VARIANT] and known keys"
        print(f"train: {told}; {hint}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse_flags)
