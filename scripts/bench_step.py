"""Times a train step of every stage, and a frame of synthesis, in total and by part.

    python scripts/make_subject.py --out data/quickstart
    python scripts/bench_step.py --out bench_step.json

Prints a table and writes JSON: milliseconds a step (or frame), median, least and most over
`--repeats` runs of `--steps` steps in one dispatch. Parts come from the profiler: every operation
of the compiled program is counted to the part whose code it came from (a fused one to the part of
its result), so they add up to the time the device was busy; `unaccounted` is the rest of the wall
time of the profiled calls: gaps between operations, and what the profiler does not see.
"""

import argparse
import collections
import dataclasses
import glob
import gzip
import json
import pathlib
import re
import statistics
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax import config as config_lib
from fg3dgs_jax import native
from fg3dgs_jax.avatar import draw, play, store
from fg3dgs_jax.clip.open import open_clip
from fg3dgs_jax.media import video
from fg3dgs_jax.training import batches, feed, first_gaussians, loop, objective, parallel, step

# The first pattern that is found in an operation's name or custom call decides. Names are those of
# jax.named_scope and of the Flax modules.
PARTS = (
    ("guides", r"/guides/|\(guides\)|guides"),
    ("lpips", r"lpips|AlexNet"),
    ("rasterizer", r"fg3dgs_(project|rasterize)"),
    ("encoding", r"fg3dgs_encode|/encoding"),
    ("ssim", r"fg3dgs_ssim|d_ssim"),
    ("optimizer", r"optimizer"),
    ("batch", r"batch_preparation"),
    ("motion nets", r"FaceMotion|HighFrequencyMotion"),
    ("colors", r"colors"),
    ("losses and masks", r"losses|composite"),
)
SPLIT = ("rasterizer", "encoding", "motion nets")  # told apart into forward and backward
CONTAINERS = ("while", "conditional", "call")  # their contents are counted by themselves


def parse(argv):
    """Flags of the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/quickstart.py", help="FILE[:VARIANT]")
    parser.add_argument("--data", help="processed folder (default: the config's)")
    parser.add_argument(
        "--side", type=int, help="px, of the longer side to time at (default: the config's)"
    )
    parser.add_argument("--workdir", help="trained run to take Gaussians from (default: untrained)")
    parser.add_argument(
        "--cases", nargs="+", default=list(CASES), choices=list(CASES), help="default: all"
    )
    parser.add_argument(
        "--max_side", type=int, default=0, help="of synthesised frames, px (0: as they are)"
    )
    parser.add_argument("--steps", type=int, default=20, help="steps a dispatch")
    parser.add_argument("--repeats", type=int, default=5, help="timed dispatches a case")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    flags = parser.parse_args(argv)
    if flags.steps < 1 or flags.repeats < 1:
        parser.error("--steps and --repeats must be 1 or more")
    return flags


def part_of(name) -> str:
    """The part that an operation belongs to, by its op_name and custom call target."""
    for part, pattern in PARTS:
        if re.search(pattern, name):
            if part not in SPLIT:
                return part
            backward = "transpose(" in name or "_bwd" in name
            return f"{part} {'backward' if backward else 'forward'}"
    return "other"


def parts_by_operation(program_text):
    """{operation: part} of a compiled program; containers are left out."""
    found = {}
    for line in program_text.splitlines():
        match = re.match(r"\s*(?:ROOT )?%?([\w.\-]+) = .*?[\])}] ([\w\-]+)\(", line)
        if match is None or match[2] in CONTAINERS:
            continue
        names = re.findall(r'(?:op_name|custom_call_target)="([^"]*)"', line)
        found[match[1]] = part_of(" ".join(names))
    return found


def profile(run, parts):
    """(milliseconds by part that one call of `run` kept the device busy, of the whole call)."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            whole = timed(run)
        (path,) = glob.glob(f"{folder}/**/*.trace.json.gz", recursive=True)
        with gzip.open(path) as file:
            events = json.load(file)["traceEvents"]
    spent = collections.Counter()
    for event in events:
        operation = event.get("args", {}).get("hlo_op")
        if event.get("ph") == "X" and operation in parts:
            spent[parts[operation]] += event["dur"] / 1e3
    return spent, whole


def spread(values):
    """Median, least and most, rounded to microseconds."""
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }


def measure(run, program_text, per, repeats):
    """Total without the profiler, then parts with it, each over `repeats` calls of `run()`.

    `per`: what one call holds of what is counted (steps, frames).
    """
    run()
    totals = []
    for _ in range(repeats):
        totals.append(timed(run) / per)
    parts = parts_by_operation(program_text)
    try:
        profiled = [profile(run, parts) for _ in range(repeats)]
    except Exception as error:  # the profiler's affair, which must not cost us the totals
        print(f"no parts: {str(error).splitlines()[:1]}", flush=True)
        profiled = [(collections.Counter(), per * totals[-1])]
    rows, wholes = zip(*profiled, strict=True)
    names = sorted({n for row in rows for n in row}, key=lambda n: -sum(r[n] for r in rows))
    rest = [(w - sum(row.values())) / per for row, w in zip(rows, wholes, strict=True)]
    total = spread(totals)
    return {
        "total_ms": total,
        "per_second": round(1e3 / total["median"], 2),
        "profiled_ms": spread([w / per for w in wholes]),
        "parts_ms": {n: spread([row[n] / per for row in rows]) for n in names},
        "unaccounted_ms": spread(rest),
    }


def timed(run):
    """Milliseconds of one call, its preparation not included."""
    prepared = run.prepare()
    begin = time.perf_counter()
    jax.block_until_ready(run.call(prepared))
    return 1e3 * (time.perf_counter() - begin)


class Run:
    """A call whose argument is made anew each time, outside of what is timed."""

    def __init__(self, call, prepare=lambda: None):
        self.call, self.prepare = call, prepare

    def __call__(self):
        jax.block_until_ready(self.call(self.prepare()))


def bench_stage(subject, flags, name, progress):
    """One stage's step at `progress` of it."""
    config = subject.config
    stage = getattr(config.stages, name)
    number = [n for n, _ in loop.stages_in_order(config)].index(name)
    setup = objective.Setup(config, stage, number, subject.nets, subject.networks, subject.size)
    late = progress >= stage.patches.start
    one = step.make_train_step(dataclasses.replace(setup, lpips=late))

    def many(state, clip, index):
        return jax.lax.scan(lambda s, i: one(s, clip, step.Inputs(i)), state, index)

    at = jnp.int32(progress * stage.steps)
    pick = feed.make_picker(config, stage, number, config.batch * jax.device_count())
    index = pick(subject.on_device, at + jnp.arange(flags.steps))
    index = parallel.deal({r: parallel.ours(x) for r, x in index.items()})

    def fresh():
        state = step.init_state(subject.regions, subject.alive).replace(step=at)
        return jax.block_until_ready(parallel.replicate(state))

    clip = parallel.replicate(subject.on_device)
    program = parallel.pmap(many, donate_argnums=0).lower(fresh(), clip, index).compile()
    run = Run(lambda state: program(state, clip, index), fresh)
    return measure(run, program.as_text(), flags.steps, flags.repeats)


def bench_synthesis(subject, flags, _name, _progress):
    """A frame: drawing in batches, and the host's work before and after it."""
    config, clip = subject.config, open_clip(subject.config.data.path, flags.max_side)
    drawer = draw.Avatar(config, subject.regions, subject.alive)
    features = clip.audio_features(config.data.audio_extractor)
    expression = clip.expression_channels(tuple(config.data.expression))
    count = max(1, flags.steps // play.BATCH) * play.BATCH
    poses = play.ping_pong(count, clip.num_frames)
    drive = play.Drive(features, expression[poses], poses=poses, sounds=poses)
    ready = jax.device_put(play.inputs(clip, drive.take(np.arange(play.BATCH))))
    program = jax.jit(drawer.draw_pictures).lower(*ready).compile()
    found = measure(Run(lambda _: program(*ready)), program.as_text(), play.BATCH, flags.repeats)
    pictures = list(np.asarray(program(*ready).image))
    samples = np.zeros(count * 640, np.int16)

    def whole(path):
        frames = play.draw_pictures(drawer, clip, drive)
        video.write_video(path, frames, samples)

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "talk.mp4"
        host = {
            "inputs": lambda _: play.inputs(clip, drive),
            "video": lambda _: video.write_video(path, [pictures[0]] * count, samples),
            "end to end": lambda _: whole(path),
        }
        for name, call in host.items():
            run = Run(call)
            run()
            times = spread([timed(run) / count for _ in range(flags.repeats)])
            found.setdefault("host_ms", {})[name] = times
    frame_ms = found["host_ms"]["end to end"]["median"]
    return {**found, "size": [clip.height, clip.width], "frames_per_second": 1e3 / frame_ms}


# The case, how it is timed, the stage and how far into it.
CASES = {
    "static": (bench_stage, "static", 0.5),
    "motion": (bench_stage, "motion", 0.5),
    "fusion": (bench_stage, "fusion", 0.0),
    "alignment": (bench_stage, "alignment", 0.5),
    "synthesis": (bench_synthesis, None, None),
}


class Subject:
    """A config's clip on the device, its nets, and Gaussians to draw."""

    def __init__(self, config, workdir, side=None):
        clip = open_clip(config.data.path, config.data.max_side or 0)
        clip = clip.resized(side) if side else clip
        self.config, self.size = config, (clip.height, clip.width)
        self.on_device = batches.device_clip(clip, config.data)
        self.nets = draw.make_nets(config)
        self.networks = objective.Networks(loop.load_perceptual(config))
        if config.stages.alignment.steps:
            self.networks, self.on_device = loop.ready_for_alignment(
                config, self.networks, clip, self.on_device
            )
        if workdir:
            trained = store.load(workdir)
            self.regions, self.alive = trained.regions, trained.alive
        else:
            config.warm_up.steps = 0
            self.regions, self.alive = first_gaussians.init_regions(
                jax.random.key(config.seed), clip, self.on_device, config, self.nets
            )


def show(case, found):
    total = found["total_ms"]
    print(f"{case}: {total['median']} ms ({total['min']}-{total['max']})")
    for kind in ("parts_ms", "host_ms"):
        for name, row in found.get(kind, {}).items():
            print(f"  {row['median']:9.3f}  {name}  ({row['min']}-{row['max']})")
    rest, whole = found["unaccounted_ms"]["median"], found["profiled_ms"]["median"]
    graphs = "" if jax.default_backend() == "cpu" else ", which turns CUDA graphs off"
    print(f"  {rest:9.3f}  unaccounted, of {whole} ms under the profiler{graphs}", flush=True)


def main(argv=None) -> int:
    """Runs the program; 0 on success, 1 with one line on bad input."""
    flags = parse(argv)
    try:
        config = config_lib.load(flags.config)
        config.data.path = flags.data or config.data.path
        subject = Subject(config, flags.workdir, flags.side)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"bench_step: {error}", file=sys.stderr)
        return 1
    results = {
        "config": flags.config,
        "backend": native.resolve_backend(),
        "device": jax.devices()[0].device_kind,
        "size": list(subject.size),
        "gaussians": {r: int(a.sum()) for r, a in subject.alive.items()},
        "steps": flags.steps,
        "repeats": flags.repeats,
        "cases": {},
    }
    for case in flags.cases:
        if case in dict(config.stages.items()) and not getattr(config.stages, case).steps:
            continue
        bench, *arguments = CASES[case]
        results["cases"][case] = bench(subject, flags, *arguments)
        show(case, results["cases"][case])
        if flags.out:  # after each case: the next one may be cut off
            flags.out.parent.mkdir(parents=True, exist_ok=True)
            flags.out.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
