"""Measures a clip of a paper's length end to end: disk, memory, time a frame, speed of training.

    python scripts/bench_long_clip.py --video french.mp4 --scratch bench_long --out long.json

1. The first `--whole` frames (default: 1,000) of the video go through `preprocess`.
2. Its folder is made `--frames` long (default: 6,500): the coded pictures and the rows of all
   arrays are repeated. What `preprocess` takes for so many frames is extrapolated.
3. `train` (tuned,quick), `evaluate` and `synthesize` (a minute) run on the long folder.
4. `--ratio` dispatches each, in turns, of one stage with pictures from the streams and from plain
   arrays of the same frames, in one process.

Memory is read from /proc (Linux), as `bench_memory.py` says. Each part is left out with `--skip`.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import time
from fractions import Fraction

import av
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import bench_memory

from fg3dgs_jax import config as config_lib
from fg3dgs_jax.clip import format, processed, streams
from fg3dgs_jax.config.defaults import Resident
from fg3dgs_jax.media import clock, video, video_writer
from fg3dgs_jax.training import feed, loop, parallel, step
from fg3dgs_jax.training.objective import Setup

PARTS = ("preprocess", "train", "evaluate", "synthesize", "ratio")
SPOKEN = 60  # s that the avatar speaks


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Reads the flags of the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--video", required=True, type=pathlib.Path, help="a short real clip")
    parser.add_argument("--scratch", required=True, type=pathlib.Path, help="folder to work in")
    parser.add_argument("--whole", type=int, default=1000, help="frames that are preprocessed")
    parser.add_argument("--frames", type=int, default=6500, help="of the long folder")
    parser.add_argument("--config", default="tuned,quick", help="what is trained")
    parser.add_argument("--steps", type=int, default=50, help="of a dispatch of --ratio")
    parser.add_argument("--ratio", type=int, default=6, help="dispatches of streams and of arrays")
    parser.add_argument("--stage", default="motion", help="the stage of which they are")
    parser.add_argument("--max_side", type=int, nargs="+", default=[256, 0], help="px; of --ratio")
    parser.add_argument("--skip", nargs="*", choices=PARTS, default=[], help="parts to leave out")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file for the figures")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Runs all parts and prints what they took; returns the exit code of the first that failed."""
    args = parse(argv)
    args.scratch.mkdir(parents=True, exist_ok=True)
    folder, long, run = (args.scratch / name for name in ("folder", "long", "run"))
    parts = {name: step for name, step in _programs(args, folder, long, run).items()}
    figures = {}
    for name, command in parts.items():
        if name in args.skip:
            continue
        if name == "preprocess":
            shutil.rmtree(folder, ignore_errors=True)
            make_clip(args.video, args.scratch / "clip.mp4", args.whole)
        elif not long.exists():
            lengthen(folder, long, args.frames)
        code, seconds, peak = watch(command)
        if code:
            return code
        figures[name] = {"seconds": seconds, "GB": peak[0], "GB with files": peak[1]}
        print(f"{name}: {seconds:.0f} s, {peak[0]:.2f} GB, {peak[1]:.2f} GB with files", flush=True)
        if name == "preprocess":
            figures["disk"] = disk(folder)
            print(json.dumps(figures["disk"], indent=1), flush=True)
    if "ratio" not in args.skip:
        figures["ratio"] = [ratio(args, folder, max_side) for max_side in args.max_side]
    if args.out:
        args.out.write_text(json.dumps(figures, indent=1))
    return 0


def _programs(args, folder, long, run):
    """{part: its command}."""
    sound = args.scratch / "sound.wav"
    commands = {
        "preprocess": ["--video", args.scratch / "clip.mp4", "--out", folder]
        + ["--consent", "research"],
        "train": ["--config", args.config, "--workdir", run, f"--config.data.path={long}"],
        "evaluate": ["--workdir", run, "--data", long],
        "synthesize": ["--workdir", run, "--data", long, "--audio", sound]
        + ["--out", args.scratch / "talk.mp4"],
    }
    return {
        name: [sys.executable, "-m", f"fg3dgs_jax.{name}", *map(str, flags)]
        for name, flags in commands.items()
    }


def make_clip(source: pathlib.Path, path: pathlib.Path, count: int) -> None:
    """Writes the first `count` frames of a video, and a minute of its sound to be spoken."""
    short = video.read_video(source)
    count = min(count, short.num_frames)
    samples = short.samples[: count * clock.SAMPLES_PER_FRAME]
    video_writer.write_video(path, short.frames(0, count), samples, crf=16)
    minute = np.resize(short.samples, SPOKEN * clock.SAMPLE_RATE)
    video.write_wav(path.with_name("sound.wav"), minute)


def lengthen(folder: pathlib.Path, out: pathlib.Path, count: int) -> None:
    """Makes a processed folder of `count` frames of a shorter one, begun again at its end."""
    clip = processed.load_clip(folder)
    short = clip.num_frames // streams.GROUP * streams.GROUP
    rows = np.resize(np.arange(short), count)
    part = out.with_name(f".{out.name}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    for name in streams.STREAMS:
        _repeat(folder / name, part / name, short, count)
    for path in folder.glob("*.np[yz]"):
        if path.name != "lip_prior.npz":
            _repeat_rows(path, part / path.name, clip.num_frames, rows)
    for name in ("background.png", "lip_prior.npz"):
        if (folder / name).exists():
            shutil.copyfile(folder / name, part / name)
    samples = video.read_wav(folder / "audio.wav").reshape(clip.num_frames, -1)
    video.write_wav(part / "audio.wav", samples[rows].reshape(-1))
    facts = {k: clip.meta[k] for k in ("sound", "consent") if k in clip.meta}
    height, width = clip.height, clip.width
    format.save_meta(
        part,
        num_frames=count,
        width=width,
        height=height,
        intrinsics=clip.intrinsics,
        source={"repeated": str(folder)},
        **facts,
    )
    part.rename(out)


def _repeat_rows(path, target, num_frames, rows):
    loaded = np.load(path)
    if path.suffix == ".npy":
        np.save(target, loaded[rows])
        return
    fields = {name: loaded[name] for name in loaded.files}
    per_frame = {n: x[rows] for n, x in fields.items() if x.ndim and len(x) == num_frames}
    np.savez(target, **fields | per_frame)


def _repeat(source, target, short, count):
    """The packets of the first `short` pictures of a stream again and again, `count` in all."""
    with av.open(str(source)) as container, av.open(str(target), "w", format="matroska") as out:
        stream = container.streams.video[0]
        copy = out.add_stream_from_template(stream)
        packets = [p for p in container.demux(stream) if p.dts is not None][:short]
        data = [(bytes(p), p.is_keyframe) for p in packets]
        base = Fraction(1, clock.FPS)
        for number in range(count):
            content, key = data[number % short]
            packet = av.Packet(content)
            packet.pts = packet.dts = number
            packet.duration, packet.time_base, packet.stream = 1, base, copy
            packet.is_keyframe = key
            out.mux(packet)


def watch(command: list[str]) -> tuple[int, float, tuple[float, float]]:
    """Runs a program; returns its exit code, seconds, and peak GB of its own and with files."""
    begin, peak = time.monotonic(), (0.0, 0.0)
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            time.sleep(bench_memory.INTERVAL)
            now = bench_memory.memory(process.pid)
            peak = max(peak[0], now[0]), max(peak[1], now[1])
    return process.returncode, time.monotonic() - begin, peak


def disk(folder: pathlib.Path) -> dict[str, float]:
    """Returns MB a minute of each file of a processed folder, of the pictures and of all."""
    frames = processed.load_clip(folder).num_frames
    minutes = frames / clock.FPS / 60
    sizes = {p.name: p.stat().st_size / 1e6 / minutes for p in folder.iterdir() if p.is_file()}
    pictures = sum(size for name, size in sizes.items() if name in streams.STREAMS)
    totals = {"frames": frames, "pictures": pictures, "all": sum(sizes.values())}
    named = dict(sorted(sizes.items(), key=lambda item: -item[1]))
    return {name: round(value, 2) for name, value in (totals | named).items()}


def ratio(args: argparse.Namespace, folder: pathlib.Path, max_side: int) -> dict[str, object]:
    """Returns ms a step with pictures from streams and from arrays, dispatch by dispatch in turns.

    CPU ms count what a machine that is busy with other things does not change.
    The arrays are in the system's cache or not, as it comes. Pictures that were decoded stay in the
    memory as in any training.
    """
    plain = args.scratch / "plain"
    if not plain.exists():
        write_arrays(folder, plain)
    runs = {
        name: _steps(args, path, max_side, args.scratch / f"{name}_{max_side}")
        for name, path in (("streams", folder), ("arrays", plain))
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(args.ratio + 1):
        for name, steps in runs.items():
            times[name].append(next(steps))
    # The first dispatch of each is compiled.
    each = {name: np.array(rows[1:]) for name, rows in times.items()}
    speed = np.median(each["arrays"] / each["streams"], 0).round(3)
    found = {
        "max_side": max_side,
        "stage": args.stage,
        "ms a step": {name: np.median(rows[:, 0]).round(2) for name, rows in each.items()},
        "CPU ms a step": {name: np.median(rows[:, 1]).round(2) for name, rows in each.items()},
        "speed of streams, of that of arrays": {"time": speed[0], "CPU": speed[1]},
    }
    print(json.dumps(found), flush=True)
    return found


def write_arrays(folder: pathlib.Path, out: pathlib.Path) -> None:
    """Writes the same folder with plain arrays in place of its streams."""
    clip = processed.load_clip(folder)
    shutil.copytree(folder, out, ignore=shutil.ignore_patterns("*.mkv", ".*", "meta.json"))
    for name in format.ARRAYS:
        pictures = getattr(clip, name)
        array = np.lib.format.open_memmap(out / f"{name}.npy", "w+", np.uint8, pictures.shape)
        for i, picture in enumerate(pictures):
            array[i] = picture
    shutil.copyfile(folder / "meta.json", out / "meta.json")


def _steps(args, folder, max_side, workdir):
    """Yields ms and CPU ms of this process a step, of one dispatch after the other."""
    config = config_lib.load(args.config)
    config.data.path, config.data.max_side = str(folder), max_side or None
    config.data.seconds, config.data.resident = None, Resident.HOST
    config.warm_up.steps, config.steps_per_dispatch = 0, args.steps
    config.log.checkpoint_every = args.steps
    shutil.rmtree(workdir, ignore_errors=True)
    job = loop.prepare(config, workdir, loop.open_data(config, workdir), print)
    run, clip = job.run, job.run.clip
    stages = loop.stages_in_order(config)
    number, stage = next((n, s) for n, (name, s) in enumerate(stages) if name == args.stage)
    run.state = parallel.replicate(step.begin_stage(run.state, stage))
    size = (clip.height, clip.width)
    setup = Setup(config, stage, number, job.nets, job.networks, size, run.lists.capacities)
    dispatch = step.make_dispatch(setup)
    begin = time.perf_counter(), time.process_time()
    for span, inputs in feed.feed(config, stage, number, clip, run.on_device, False, 0):
        run.state, metrics, _ = dispatch(run.state, job.replicated, inputs)
        float(parallel.first(metrics)["loss"])
        seconds = time.perf_counter() - begin[0], time.process_time() - begin[1]
        yield tuple(1e3 * s / span.steps for s in seconds)
        begin = time.perf_counter(), time.process_time()


if __name__ == "__main__":
    sys.exit(main())
