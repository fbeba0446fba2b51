"""Kills preprocessing, training and synthesis at random moments, resumes, and compares the results.

    python scripts/kill_test.py --scratch kill_test --kills 50

Works on the embedded subject, on Linux. Each program runs undisturbed first, twice: the first run
is the result to compare with, the second shows that it is repeatable and how much of the
processor's time it takes. Then the program is started again and again. Each start is killed
(SIGKILL) after a random part of that time, until one start comes to its end before that. Its result
must then equal the undisturbed one byte for byte, and nothing half-written may be left. This
repeats until enough kills have landed. Undisturbed results in the scratch folder are used again.
"""

import argparse
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence

from fg3dgs_jax.clip import processed
from fg3dgs_jax.media import video, windows
from fg3dgs_jax.synthetic import subject

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Share of the undisturbed time in which a kill falls.
LATEST = 1.1
# Files that hold times of day or durations, by program: they are never the same twice.
TIMED = {
    "preprocess": ("state.json", "report.html"),
    "train": ("train.json", "metrics.jsonl", "tensorboard", "checkpoints"),
    "synthesize": (),
}
CONFIG = '''"""The embedded subject at 64 px, a few steps a stage."""

from configs import quickstart


def get_config(variant=""):
    """A config whose run takes seconds once its programs are compiled."""
    config = quickstart.get_config("tiny")
    config.data.path, config.data.max_side, config.data.made_by = {folder!r}, 64, None
    config.steps_per_dispatch, config.warm_up.steps = 5, 2
    config.log.every = config.log.checkpoint_every = 5
    config.log.samples_every = 20
    for name in ("face", "eyes", "mouth"):
        population = getattr(config.gaussians, name)
        population.num, population.capacity = 200, 256
    for name in ("static", "motion", "fusion"):
        getattr(config.stages, name).steps = 20
    return config
'''


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the flags of the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scratch", required=True, type=pathlib.Path, help="folder to work in")
    parser.add_argument("--kills", type=int, default=50, help="of each program (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument(
        "--only", nargs="+", choices=list(TIMED), default=list(TIMED), help="of the programs"
    )
    parser.add_argument("--minutes", type=float, help="stop each program's test after so long")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file for the figures")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tests; returns 0 if every result was the same, else 1."""
    args = parse(argv)
    scratch = args.scratch.absolute()
    scratch.mkdir(parents=True, exist_ok=True)
    make_material(scratch)
    results = {}
    for name in args.only:
        moments = random.Random(f"{args.seed} {name}")
        results[name] = test(name, scratch, args.kills, moments, args.minutes)
        print(f"{name}: {json.dumps(results[name])}", flush=True)
        if args.out:
            args.out.write_text(json.dumps(results, indent=1))
    return int(any(row["different"] or row["failed"] for row in results.values()))


def make_material(scratch: pathlib.Path) -> None:
    """Makes the subject's folder, the same as a video, new speech and a config, once."""
    if not (scratch / "config.py").exists():
        shutil.rmtree(scratch / "subject", ignore_errors=True)
        features = {"mel": windows.mel_windows}
        subject.make_clip(scratch / "subject", seed=0, seconds=3, size=192, features=features)
        sound = video.read_wav(scratch / "subject" / "audio.wav")
        frames = processed.load_clip(scratch / "subject").frames
        video.write_video(scratch / "subject.mp4", frames, sound)
        video.write_wav(scratch / "speech.wav", subject.synthesize_speech(1, 4)[0])
        text = CONFIG.format(folder=str(scratch / "subject"))
        (scratch / "config.py").write_text(text)


def command(name: str, scratch: pathlib.Path, out: pathlib.Path) -> list[str]:
    """The program and its flags; what it writes lies in the folder `out`."""
    flags = {
        "preprocess": [
            *("--video", scratch / "subject.mp4", "--out", out / "clip", "--consent", "self"),
            *("--features", "mel", "--parser", "landmarks"),
        ],
        "train": ["--config", scratch / "config.py", "--workdir", out / "run"],
        "synthesize": [
            *("--workdir", scratch / "train" / "whole" / "run"),
            *("--audio", scratch / "speech.wav", "--out", out / "talk.mp4"),
        ],
    }[name]
    return [sys.executable, "-m", f"fg3dgs_jax.{name}", *map(str, flags)]


def test(
    name: str, scratch: pathlib.Path, kills: int, moments: random.Random, minutes: float | None
) -> dict:
    """Kills one program until `kills` have landed; returns the figures."""
    folder = scratch / name
    for what in ("whole", "again"):  # the second finds its programs compiled
        if (folder / f"{what}.json").exists():
            continue
        shutil.rmtree(folder / what, ignore_errors=True)
        seconds, code = start(command(name, scratch, folder / what), folder / f"{what}.log")
        if code:
            raise SystemExit(f"{name} failed undisturbed: see {folder / what}.log")
        (folder / f"{what}.json").write_text(json.dumps(seconds))
    seconds = json.loads((folder / "again.json").read_text())
    expected = contents(folder / "whole", TIMED[name])
    repeatable = expected == contents(folder / "again", TIMED[name])
    row = {"seconds": round(seconds, 1), "repeatable": repeatable, "kills": 0, "runs": 0}
    row |= {"same": 0, "different": 0, "failed": 0, "differences": []}
    until = time.monotonic() + 60 * minutes if minutes else float("inf")
    while row["kills"] < kills and time.monotonic() < until:
        out = folder / f"killed_{row['runs']:03d}"
        shutil.rmtree(out, ignore_errors=True)
        landed, code = chain(command(name, scratch, out), out, seconds, moments)
        row["kills"] += landed
        row["runs"] += 1
        found = contents(out, TIMED[name])
        odd = sorted(k for k in found.keys() | expected.keys() if found.get(k) != expected.get(k))
        row["failed"] += bool(code)
        row["same"] += not odd and not code
        row["different"] += bool(odd) and not code
        if odd or code:
            row["differences"].append({"run": out.name, "code": code, "files": odd[:10]})
            print(f"{name}: {row['differences'][-1]}", flush=True)
        else:
            shutil.rmtree(out)
            out.with_suffix(".log").unlink()
        print(f"{name}: {row['kills']} kills, {row['runs']} runs, {row['same']} same", flush=True)
    return row


def chain(
    program: list[str], out: pathlib.Path, seconds: float, moments: random.Random
) -> tuple[int, int]:
    """Starts and kills a program until it ends by itself; (kills that landed, its exit code)."""
    landed = 0
    while True:
        _, code = start(program, out.with_suffix(".log"), moments.uniform(0, LATEST * seconds))
        if code != -signal.SIGKILL:
            return landed, code
        landed += 1


def start(
    program: list[str], log: pathlib.Path, kill_after: float = float("inf")
) -> tuple[float, int]:
    """Runs a program, or kills it and its children.

    Args:
      program: it and its flags.
      log: file for what it prints.
      kill_after: s of the processor's time. A busy machine does not change what falls into it.

    Returns:
      (s of the processor's time, exit code).
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(log.parents[1] / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    with log.open("a") as file:
        process = subprocess.Popen(
            program,
            env=environment,
            cwd=ROOT,
            stdout=file,
            stderr=file,
            process_group=0,
        )
        used = 0.0
        while process.poll() is None:
            time.sleep(0.02)
            used = max(used, processor_time(process.pid))
            if used >= kill_after and process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        file.write(f"-- exit code {process.returncode} after {used:.2f} s\n")
    return used, process.returncode


def processor_time(pid: int) -> float:
    """S of the processor's time that a process has used; 0 where it has ended."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def contents(folder: pathlib.Path, timed: Sequence[str]) -> dict[str, str]:
    """{name: sha256} of every file below a folder, of what is in it for archives.

    Of files and folders called as in `timed` only the names of the folder's own level count.
    """
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        odd = [part for part in path.relative_to(folder).parts if part in timed]
        found[name if not odd else odd[0]] = "" if odd else digest(path)
    return found


def digest(path: pathlib.Path) -> str:
    """Hex digest of a file; of an npz the digest of its members."""
    read: Callable[[pathlib.Path], bytes] = pathlib.Path.read_bytes
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            parts = [f"{i.filename} {i.CRC} {i.file_size}" for i in archive.infolist()]
        return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()
    return hashlib.sha256(read(path)).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
