"""The loop: every stage of a config in its order, from where the workdir stands."""

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from clu import parameter_overview
from flax import linen as nn

from fg3dgs_jax import config as config_lib
from fg3dgs_jax import native
from fg3dgs_jax.avatar import draw, store
from fg3dgs_jax.avatar import workdir as workdir_lib
from fg3dgs_jax.clip import processed
from fg3dgs_jax.clip.fingerprint import fingerprint
from fg3dgs_jax.clip.open import open_clip
from fg3dgs_jax.config import Config, Stage
from fg3dgs_jax.experts.image import lpips
from fg3dgs_jax.lipsync import alignment
from fg3dgs_jax.media import video
from fg3dgs_jax.media.progress import progress
from fg3dgs_jax.media.whole_files import whole
from fg3dgs_jax.system import lock, memory, stop
from fg3dgs_jax.training import batches, checkpoint, feed, hooks, masks, parallel, step
from fg3dgs_jax.training import log as log_lib
from fg3dgs_jax.training.first_gaussians import init_regions
from fg3dgs_jax.training.objective import Networks, Setup
from fg3dgs_jax.weights import store as weights_store


def fit(
    config: Config | str | os.PathLike[str],
    workdir: str | os.PathLike[str] | None = None,
    profile: bool = False,
) -> float:
    """Trains an avatar: runs every stage of `config` from where the workdir stands.

    Writes checkpoints (Orbax), `avatar.npz`, `metrics.jsonl`, TensorBoard events and sample
    pictures (ground truth | render | face | eyes | mouth | error) to the workdir.

    Args:
      config: a Config, or what names one: `configs/obama.py:tuned,small`, or `tuned,small`.
      workdir: folder of the run, by default runs/NAME, the config's name.
      profile: write traces and print each stage's time a step.

    Returns:
      Seconds trained, those of earlier calls included.

    Raises:
      ValueError: a config, workdir or processed folder that cannot be used.
      FloatingPointError: a loss that is not finite, naming stage, step and term.
    """
    config = config_lib.load(config)
    check(config)
    workdir = pathlib.Path(workdir or f"runs/{config.name}")
    seconds = workdir_lib.finished(workdir, config)
    if seconds is not None:
        return seconds
    say = print if parallel.writes() else lambda *_, **__: None
    clip = open_data(config, workdir)
    with contextlib.ExitStack() as stack:
        if parallel.writes():
            stack.enter_context(lock.held(workdir, "train"))
        job = prepare(config, workdir, clip, say)
        log = log_lib.Log(workdir, job.run.done, parallel.writes())
        stack.callback(log.close)
        profiler = log_lib.Profile(workdir / "profile") if profile and parallel.writes() else None
        _run_stages(job, log, profiler)
        run = job.run
        if parallel.writes():
            store.save(workdir, run.state.regions, run.state.alive)
            summary = {"train_seconds": run.seconds, "steps": run.done}
            with whole(workdir / workdir_lib.SUMMARY_FILE) as part:
                part.write_text(json.dumps(summary))
    if profiler:
        profiler.report()
    return run.seconds


def _run_stages(job: "Job", log: log_lib.Log, profiler: log_lib.Profile | None) -> None:
    """Runs what is left of each stage; a signal ends it after a dispatch, with a checkpoint."""
    run, config = job.run, job.run.config
    done = run.done
    total = sum(stage.steps for _, stage in stages_in_order(config))
    bar = progress(desc="train", total=total, initial=done, unit="step", enabled=parallel.writes())
    said = "stopping after this dispatch, with a checkpoint"
    with bar, Dispatches(job) as dispatches, stop.gently(said) as request:
        between = (
            hooks.stop_if_not_finite,
            hooks.show_progress(bar),
            hooks.write_log(log),
            hooks.grow,
            # Before the checkpoint: a kill between the two would leave the picture out for good.
            hooks.draw_samples(config),
            hooks.save(job.checkpoints),
            hooks.stop_if_asked(request, job.checkpoints),
        )
        start = 0  # the total step at which the stage begins
        for number, (name, stage) in enumerate(stages_in_order(config)):
            if done < start + stage.steps or done == 0:
                run_stage(job, name, number, run.done - start, between, dispatches, profiler)
            start += stage.steps


@dataclasses.dataclass
class Job:
    """A run and what it works with."""

    run: hooks.Run
    nets: Mapping[str, nn.Module]
    networks: Networks
    resident: bool  # whether the clip's pictures lie on the devices
    replicated: batches.DeviceClip  # the clip, on every device
    checkpoints: checkpoint.Checkpoints


def open_data(config: Config, workdir: pathlib.Path) -> processed.Clip:
    """The clip to train on.

    Raises:
      ValueError: there is none, or none that can be used. Where the workdir was trained on it
        before, it has been moved: the line says how to name the new place.
    """
    path, made_by = pathlib.Path(config.data.path), config.data.made_by
    if not path.exists():
        if (workdir / workdir_lib.CHECKPOINTS).is_dir():
            raise ValueError(
                f"{path}, on which {workdir} is being trained, does not exist; expected the same "
                "processed folder: if it was moved, name its place with --config.data.path=FOLDER"
            )
        if made_by is not None:
            raise ValueError(f"{path} does not exist; make it with: {made_by}")
    return open_clip(path, config.data.max_side or 0)


def prepare(
    config: Config,
    workdir: pathlib.Path,
    clip: processed.Clip,
    say: Callable[..., None] = print,
) -> Job:
    """Opens the workdir, and fills the state: first Gaussians or newest checkpoint.

    Raises:
      ValueError: a processed folder or workdir that cannot be used.
    """
    resident = batches.fits(clip, config.data.resident)
    clip = clip if resident else clip.kept(batches.room_to_keep())
    classes = masks.region_labels(config)
    on_device = batches.device_clip(clip, config.data, classes, resident=False)
    resolved = workdir_lib.resolved(config, np.asarray(on_device.audio))
    mark = fingerprint(clip)
    workdir_lib.claim(workdir, resolved, checkpoint.newest_config, parallel.writes())
    checkpoints = checkpoint.Checkpoints(workdir, config.log.keep)
    latest = checkpoints.latest()
    if latest is not None and latest.progress.clip not in (None, mark):
        raise ValueError(
            f"{config.data.path} holds another clip than {workdir} was trained on; expected the "
            "same: name its place with --config.data.path=FOLDER, or use another --workdir"
        )
    if not resident and jax.default_backend() != "cpu":
        say("the clip's pictures do not stay on the device: they are read as they are needed")
    networks = Networks(load_perceptual(config))
    if config.stages.alignment.steps:
        networks, on_device = ready_for_alignment(config, networks, clip, on_device, say)
    nets = draw.make_nets(config)
    # A checkpoint's values take the place of those that the warm-up would learn.
    warm = latest is None
    regions, alive = init_regions(jax.random.key(config.seed), clip, on_device, config, nets, warm)
    state = step.init_state(regions, alive)
    counts = {
        r: parameter_overview.count_parameters(v.motion["params"]) for r, v in regions.items()
    }
    say("motion nets:", ", ".join(f"{r} {n:,} parameters" for r, n in counts.items()))
    pixels = clip.height * clip.width * config.batch * len(config.regions)
    needed = batches.expected_bytes(clip, state, resident, pixels)
    say(memory.foresee(needed, "use --config.data.max_side=256, or --config.data.resident=host"))
    lists = hooks.monitor_lists(config, state.alive, clip)
    run = hooks.Run(config, workdir, clip, on_device, state, lists)
    run.resolved, run.fingerprint = resolved, mark
    if latest is not None:
        run.done = run.saved = latest.step
        run.seconds = latest.progress.seconds
        run.state = checkpoint.fill(state, latest.leaves)
        run.lists = hooks.monitor_lists(config, run.state.alive, clip)
        say(f"resuming {workdir} at step {run.done} ({latest.progress.stage})", flush=True)
    replicated = parallel.replicate(
        batches.with_pictures(on_device, clip) if resident else on_device
    )
    return Job(run, nets, networks, resident, replicated, checkpoints)


def run_stage(
    job: Job,
    name: str,
    number: int,
    done: int,
    between: Sequence[hooks.Hook],
    dispatches: "Dispatches",
    profiler: log_lib.Profile | None = None,
) -> None:
    """Runs one stage to its end.

    Args:
      job: what is run.
      name: the stage's.
      number: its place in the order of the stages.
      done: steps of it that were done before.
      between: called in their order after each dispatch.
      dispatches: the programs of the run.
      profiler: times each dispatch, if given.
    """
    run = job.run
    config, clip = run.config, run.clip
    stage: Stage = getattr(config.stages, name)
    run.stage = name
    if done == 0:
        run.state = step.begin_stage(run.state, stage)
    run.state = parallel.replicate(run.state)
    dispatches.compile_ahead(number, done)
    fed = feed.feed(config, stage, number, clip, run.on_device, job.resident, done)
    begin = time.perf_counter()
    for span, inputs in fed:
        steps = span.steps
        dispatch = dispatches.get(number, span)
        with profiler.dispatch(name, steps, begin) if profiler else contextlib.nullcontext():
            run.state, metrics, each = dispatch(run.state, job.replicated, inputs)
            metrics = {k: float(v) for k, v in parallel.read(metrics).items()}
        seconds = time.perf_counter() - begin
        run.done += steps
        run.seconds += seconds
        done += steps
        finished = hooks.Dispatch(steps, seconds, metrics, each, run.done, done == stage.steps)
        for hook in between:
            hook(run, finished)
        run.lists.update({r: int(metrics[f"{r}/isects"]) for r in config.regions})
        begin = time.perf_counter()
    run.state = run.on_host()


class Dispatches:
    """The programs of a run, each made once; for a GPU they are compiled ahead, in a thread.

    XLA compiles without Python's lock, and a GPU leaves the processor idle. A CPU would train
    slower meanwhile.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._made: dict[tuple, Callable] = {}
        self._coming: dict[tuple, concurrent.futures.Future] = {}
        # Processes of one run tune together, so they have to compile in the same order.
        ahead = native.on_gpu() and jax.process_count() == 1
        self._pool = concurrent.futures.ThreadPoolExecutor(1) if ahead else None

    def __enter__(self) -> "Dispatches":
        return self

    def __exit__(self, *_) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def get(self, number: int, span: feed.Span) -> Callable:
        """The program of a span of a stage; waits for it where it is being compiled."""
        if (coming := self._coming.get(self._key(number, span))) is not None:
            coming.result()
        return self._make(number, span)

    def compile_ahead(self, number: int, done: int) -> None:
        """Begins to compile what the rest of a stage and the one after it will need.

        The programs of earlier stages are forgotten, for they are large.

        Args:
          number: the stage's place in the order of the stages.
          done: steps of it that were done before.
        """
        self._made = {key: made for key, made in self._made.items() if key[0] >= number}
        if self._pool is None:
            return
        run = self._job.run
        arrays = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
            (run.state, self._job.replicated),
        )
        stages = stages_in_order(run.config)[: number + 2]
        spans = [(number, span) for span in feed.spans(run.config, stages[number][1], done)]
        for following in range(number + 1, len(stages)):
            spans += [(following, s) for s in feed.spans(run.config, stages[following][1], 0)]
        now = self._key(*spans[0])  # is compiled at once, by who asks for it
        for n, span in spans:
            key = self._key(n, span)
            if key != now and key not in self._coming:
                dispatch = self._make(n, span)
                self._coming[key] = self._pool.submit(self._compile, dispatch, n, span, arrays)

    def _compile(self, dispatch, number, span, arrays):
        job, run = self._job, self._job.run
        _, stage = stages_in_order(run.config)[number]
        fed = feed.feed(
            run.config, stage, number, run.clip, run.on_device, job.resident, span.start
        )
        _, inputs = next(fed)
        dispatch.lower(*arrays, inputs).compile()

    def _make(self, number, span):
        job, run, key = self._job, self._job.run, self._key(number, span)[1:]
        if key not in self._made:
            _, stage = stages_in_order(run.config)[number]
            size, lists = (run.clip.height, run.clip.width), run.lists.capacities
            setup = Setup(run.config, stage, number, job.nets, job.networks, size, lists)
            setup = dataclasses.replace(setup, lpips=span.lpips, controls=span.controls)
            self._made[key] = step.make_dispatch(setup)
        return self._made[key]

    def _key(self, number, span):
        lists = tuple(self._job.run.lists.capacities.items())
        return span.steps, number, lists, span.lpips, span.controls


def stages_in_order(config: Config) -> list[tuple[str, Stage]]:
    """(name, stage) of each stage that has steps, in the order in which they run."""
    return [(name, stage) for name, stage in config.stages.items() if stage.steps]


def check(config: Config) -> None:
    """Refuses settings that cannot work, in one line each."""
    if not config.data.path:
        raise ValueError("config.data.path is empty; expected a processed folder")
    if config.batch < 1 or config.steps_per_dispatch < 1:
        raise ValueError(
            f"batch is {config.batch} and steps_per_dispatch {config.steps_per_dispatch}; "
            "expected 1 or more of each"
        )
    if config.log.checkpoint_every % config.steps_per_dispatch:
        raise ValueError("log.checkpoint_every must be a multiple of steps_per_dispatch")
    for name, stage in config.stages.items():
        if stage.steps < (name != "alignment"):
            raise ValueError(f"stages.{name}.steps is {stage.steps}; expected 1 or more")


def load_perceptual(config: Config) -> Callable[[jax.Array, jax.Array], jax.Array] | None:
    """LPIPS as `(x, y) -> [K]`, or None with one line where its weights are not found."""
    stages = [stage for _, stage in stages_in_order(config)]
    if not any(stage.losses.lpips and stage.patches.start < 1.0 for stage in stages):
        return None
    path = weights_store.find("lpips_alex")
    if path is None:
        print("LPIPS weights not found: training without the perceptual term of eq. (15)")
        return None
    params = lpips.load(path)
    return lambda x, y: lpips.lpips(params, x, y)


def ready_for_alignment(
    config: Config,
    networks: Networks,
    clip: processed.Clip,
    on_device: batches.DeviceClip,
    say: Callable[..., None] = print,
) -> tuple[Networks, batches.DeviceClip]:
    """The expert of eq. (16), None where it is not found, and where five frames may be drawn.

    Returns:
      `networks` with the expert, and the clip with the frames at which a window may begin.
    """
    path = clip.path / "audio.wav"
    if not path.is_file():
        raise ValueError(f"{path} is missing, which eq. (16) needs; run preprocess again")
    samples = video.read_wav(path)
    learnt = batches.learnt_frames(clip, config.data.seconds)
    windows = alignment.windows(clip, learnt)
    if not windows.any():
        raise ValueError(
            f"{clip.path} has no five consecutive frames of a face in its train split, which "
            "eq. (16) needs; train without it: --config.stages.alignment.steps=0"
        )
    on_device = on_device._replace(eligible=on_device.eligible | {"windows": windows})
    expert = alignment.load(config.sync_expert or "", clip, samples)
    if expert.call is None:
        say("no lip-sync expert found: training without eq. (16) (see: lipsync fit)")
        return networks, on_device
    say(f"the expert of eq. (16) is {expert.source}")
    return networks._replace(sync=expert.call), on_device
