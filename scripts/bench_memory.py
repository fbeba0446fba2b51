"""Measures how much memory preprocessing a long 1080p clip takes, step by step.

    python scripts/bench_memory.py --video obama.mp4 --minutes 10 --scratch bench_memory

The clip is a real one. Its pictures run forwards and backwards without cuts, enlarged to 1080p and
repeated, as H.264. Its sound is repeated, as AAC. `preprocess` runs on it as a process of its own.
Five times a second the memory of that process and its children is read from /proc (Linux):

- anonymous: the program's own (RssAnon, RssShmem), which only the program can give back;
- with files: the same and the pages of memory-mapped files (RssFile), which the system takes back
  when it needs memory.

Printed for every step: seconds and the peaks of both. Runs with several --minutes show what grows
with the length of the clip.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import av
import cv2
import numpy as np

from fg3dgs_jax.media import video, video_writer

HEIGHT, WIDTH = 1080, 1920
# s between two readings.
INTERVAL = 0.2
# What a clip of 10 minutes may take.
LIMIT_GB = 2.0


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Reads the flags of the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--video", required=True, type=pathlib.Path, help="a short real clip")
    parser.add_argument("--minutes", type=float, default=10.0, help="of the clip (default: 10)")
    parser.add_argument("--scratch", required=True, type=pathlib.Path, help="folder to work in")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file for the figures")
    parser.add_argument(
        "extra", nargs="*", metavar="-- FLAG", help="further flags of preprocess, after --"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Makes the clip, runs preprocess on it and prints the table; returns its exit code."""
    args = parse(argv)
    args.scratch.mkdir(parents=True, exist_ok=True)
    clip, out = args.scratch / f"clip_{args.minutes:g}.mp4", args.scratch / "folder"
    if not clip.exists():
        make_clip(args.video, clip, args.minutes)
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "fg3dgs_jax.preprocess", "--video", clip, "--out", out]
    command += ["--consent", "research", *args.extra]
    code, steps = watch([str(part) for part in command], out / "state.json")
    print(table(steps))
    if args.out:
        args.out.write_text(json.dumps({"minutes": args.minutes, "steps": steps}, indent=1))
    return code


def make_clip(source: os.PathLike[str] | str, path: pathlib.Path, minutes: float) -> None:
    """Writes `minutes` of 1080p H.264 and AAC, made of a short video."""
    short = video.read_video(source)
    period = path.with_name("period.mp4")
    video_writer.write_video(period, _there_and_back(short))
    seconds = minutes * 60
    samples = np.resize(short.samples, round(seconds * video.SAMPLE_RATE))
    with av.open(str(path), "w") as container:
        _repeat(period, container, seconds, samples)
    period.unlink()


def _there_and_back(short):
    """Yields its pictures forwards and backwards, enlarged and widened; they are kept as JPEG."""
    small = []
    for picture in short.frames():
        small.append(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 95])[1])
        yield _widened(picture)
    for data in reversed(small[1:-1]):
        yield _widened(cv2.imdecode(data, cv2.IMREAD_COLOR))


def _widened(picture):
    height, width = picture.shape[:2]
    scale = min(HEIGHT / height, WIDTH / width)
    size = (min(round(scale * width), WIDTH), min(round(scale * height), HEIGHT))
    large = cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC)
    left, top = (WIDTH - size[0]) // 2, (HEIGHT - size[1]) // 2
    right, bottom = WIDTH - size[0] - left, HEIGHT - size[1] - top
    return cv2.copyMakeBorder(large, top, bottom, left, right, cv2.BORDER_REFLECT)


def _repeat(period, container, seconds, samples):
    """Writes the packets of `period` again and again, without encoding them anew, and the sound."""
    sound = container.add_stream("aac", rate=48_000, layout="mono")
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=48_000, frame_size=1024)
    with av.open(str(period)) as source:
        theirs = source.streams.video[0]
        ours = container.add_stream_from_template(theirs)
        packets = [p for p in source.demux(theirs) if p.dts is not None]
        copies = [(bytes(p), p.pts, p.dts, p.duration, p.is_keyframe) for p in packets]
        base = theirs.time_base
        length = len(copies) * copies[0][3]
        for round_ in range(int(np.ceil(seconds / (length * base)))):
            for data, pts, dts, duration, key in copies:
                if (round_ * length + pts) * base >= seconds:
                    continue
                packet = av.Packet(data)
                packet.pts, packet.dts = pts + round_ * length, dts + round_ * length
                packet.duration, packet.time_base, packet.stream = duration, base, ours
                packet.is_keyframe = key
                container.mux(packet)
            first = round(round_ * length * base * video.SAMPLE_RATE)
            part = samples[first : first + round(length * base * video.SAMPLE_RATE)]
            if len(part):
                frame = av.AudioFrame.from_ndarray(part[None], format="s16", layout="mono")
                frame.sample_rate, frame.pts = video.SAMPLE_RATE, first
                for small in resampler.resample(frame):
                    container.mux(sound.encode(small))
    for small in resampler.resample(None):
        container.mux(sound.encode(small))
    container.mux(sound.encode(None))


def watch(command: list[str], state: pathlib.Path) -> tuple[int, dict[str, dict[str, float]]]:
    """Runs a program and reads its memory.

    Args:
      command: the program and its flags.
      state: file in which the program lists the steps that are done.

    Returns:
      (exit code, {step: {"seconds", "anonymous", "with_files"}}), memory in GB at its peak; the
      time after the last step is called "report".
    """
    process = subprocess.Popen(command)
    steps: dict[str, dict[str, float]] = {}
    done: list[str] = []
    peak, since = (0.0, 0.0), time.monotonic()

    def close(name):
        nonlocal peak, since
        now = time.monotonic()
        steps[name] = {"seconds": now - since, "anonymous": peak[0], "with_files": peak[1]}
        peak, since = (0.0, 0.0), now

    while process.poll() is None:
        time.sleep(INTERVAL)
        anonymous, with_files = memory(process.pid)
        peak = max(peak[0], anonymous), max(peak[1], with_files)
        finished = _done(state)
        new = [name for name in finished if name not in done]
        if new:
            close(" ".join(new))
            done += new
    close("report")
    return process.returncode, steps


def _done(state):
    try:
        return list(json.loads(state.read_text())["done"])
    except FileNotFoundError:
        return []


def memory(pid: int) -> tuple[float, float]:
    """Returns GB that a process and its descendants hold: (anonymous and shared, with files)."""
    anonymous = files = 0
    for each in [pid, *descendants(pid)]:
        try:
            lines = pathlib.Path(f"/proc/{each}/status").read_text().splitlines()
        except OSError:
            # The process has ended.
            continue
        kb = {line.split(":")[0]: int(line.split()[1]) for line in lines if line[:3] == "Rss"}
        anonymous += kb.get("RssAnon", 0) + kb.get("RssShmem", 0)
        files += kb.get("RssFile", 0)
    return anonymous * 1024 / 1e9, (anonymous + files) * 1024 / 1e9


def descendants(pid: int) -> list[int]:
    """Returns the process numbers of the children of `pid`, of their children and so on."""
    numbers = []
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        for child in children:
            numbers += [child, *descendants(child)]
    return numbers


def table(steps: dict[str, dict[str, float]]) -> str:
    """Returns the figures as text, and whether they are within the limit."""
    lines = [f"{'step':<16}{'seconds':>9}{'anonymous GB':>14}{'with files GB':>15}"]
    for name, row in steps.items():
        lines.append(
            f"{name:<16}{row['seconds']:>9.1f}{row['anonymous']:>14.2f}{row['with_files']:>15.2f}"
        )
    most = max(row["with_files"] for row in steps.values())
    own = max(row["anonymous"] for row in steps.values())
    verdict = "within" if most < LIMIT_GB else "beyond"
    lines.append(f"peak {own:.2f} GB, {most:.2f} GB with files: {verdict} {LIMIT_GB:g} GB")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
