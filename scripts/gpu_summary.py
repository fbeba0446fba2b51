"""Prints what scripts/gpu_check.sh found, and leaves at most eight small files of it.

    python scripts/gpu_summary.py PART WORK PACK OUT

PART is 1 or 2, WORK the folder of logs and results, PACK what was carried, OUT the folder for the
files. Each figure stands beside its goal. Returns 1 if a figure that must agree does not.
"""

import json
import math
import pathlib
import re
import shutil
import sys
from collections.abc import Iterator
from typing import NamedTuple

LOG_BYTES = 200_000  # of each log
# |GPU's - CPU's| of the CPU's. Two versions of JAX on one CPU were 0.013 apart in the motion stage.
LOSS_LIMIT = 0.05
RESULTS = ("bench_step.json", "bench_step_concurrent.json", "bench_rasterizer.json")
TIMED = r"^(.+?)\s+[\d.]+ us by stream\s+[\d.]+ us by graph \((\d+) nodes\), a frame ([\d.]+) us"
# Of 50,000 small Gaussians at 512 px, microseconds a frame, by batch.
DRIVER_GOALS = {
    ("forward", 1): 85,
    ("forward + backward", 1): 200,
    ("forward", 8): 40,
    ("forward + backward", 8): 100,
}
STEP_GOALS = {"motion": 2.5, "fusion": 2.5}  # ms


class Figure(NamedTuple):
    """One measured number and the most it should be."""

    name: str
    value: float
    unit: str
    goal: float | None = None
    must: bool = False  # beyond its goal something is wrong, and not only slow

    @property
    def met(self) -> bool:
        return self.goal is None or self.value <= self.goal

    def __str__(self) -> str:
        goal = "" if self.goal is None else f"goal {self.goal:g}: {'met' if self.met else 'MISSED'}"
        return f"  {self.name:46s} {self.value:10.4g} {self.unit:10s} {goal}".rstrip()


def driver_figures(logs: pathlib.Path) -> Iterator[Figure]:
    """Times of the rasterizer without JAX, by graph."""
    for batch in (1, 8):
        path = logs / f"times_{batch}.log"
        text = path.read_text() if path.exists() else ""
        for name, nodes, frame in re.findall(TIMED, text, re.MULTILINE):
            label = f"driver, batch {batch}: {name} ({nodes} nodes)"
            yield Figure(label, float(frame), "us a frame", DRIVER_GOALS.get((name, batch)))


def step_figures(work: pathlib.Path) -> Iterator[Figure]:
    """Times of train steps, graphs in order and side by side."""
    for name, how in (("bench_step", ""), ("bench_step_concurrent", ", concurrent")):
        found = _json(work / f"{name}.json")
        goals = STEP_GOALS if found.get("device") != "cpu" else {}
        for stage, row in found.get("cases", {}).items():
            yield Figure(f"{stage} step{how}", row["total_ms"]["median"], "ms", goals.get(stage))


def rasterizer_figures(work: pathlib.Path) -> Iterator[Figure]:
    """Times of pictures and gradients from JAX, ours and the peers'."""
    for row in _json(work / "bench_rasterizer.json").get("rows", ()):
        scene = f"{row['name']}, {row['gaussians']}x{row['size']} {row['footprint']}"
        for kind in ("forward", "gradients"):
            if times := row.get(f"{kind}_ms"):
                frame = 1e3 * times["median"] / row["batch"]
                yield Figure(f"{scene}, batch {row['batch']}: {kind}", frame, "us a frame")


def loss_figures(found: list[dict], wanted: list[dict]) -> Iterator[Figure]:
    """How far each stage's mean loss is from the CPU's, over the steps that both have logged."""
    cpu = {row["step"]: row["loss"] for row in wanted}
    pairs: dict[str, list[tuple[float, float]]] = {}
    for row in found:
        if row["step"] in cpu:
            pairs.setdefault(row["stage"], []).append((row["loss"], cpu[row["step"]]))
    for stage, losses in pairs.items():
        ours, expected = map(sum, zip(*losses, strict=True))
        off = abs(ours - expected) / abs(expected)
        off = off if math.isfinite(off) else math.inf
        yield Figure(f"{stage}: mean loss beside the CPU's", off, "relative", LOSS_LIMIT, must=True)


def real_figures(rows: list[dict]) -> Iterator[Figure]:
    """How far the real clip came."""
    if rows:
        yield Figure("real clip: steps in 60 s", rows[-1]["step"], "steps")
        yield Figure("real clip: last speed", rows[-1].get("steps_per_second", 0), "steps/s")


def keep(work: pathlib.Path, logs: pathlib.Path, out: pathlib.Path) -> None:
    """Copies what is worth bringing back: results, and the ends of all logs in one file."""
    for name in RESULTS:
        if (work / name).exists():
            shutil.copyfile(work / name, out / name)
    for name in ("real", "run"):
        if (metrics := work / name / "metrics.jsonl").exists():
            shutil.copyfile(metrics, out / f"metrics_{name}.jsonl")
    if samples := sorted(work.glob("real/samples/*.png")):
        shutil.copyfile(samples[-1], out / "sample.png")
    with (out / "logs.txt").open("wb") as file:
        for path in sorted(logs.glob("*.log")):
            file.write(f"\n==== {path.name}\n".encode() + path.read_bytes()[-LOG_BYTES:])


def _json(path: pathlib.Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}


def _rows(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main(argv: list[str]) -> int:
    """Runs the program; 1 if a figure that must agree does not."""
    part, (work, pack, out) = argv[0], map(pathlib.Path, argv[1:])
    logs = work / f"logs{part}"
    told, failed = (logs / "verdicts").read_text(), False
    if part == "1":
        figures = [*driver_figures(logs), *step_figures(work)]
    else:
        wanted = _rows(pack / "cpu_metrics.jsonl")
        figures = [*loss_figures(_rows(work / "run/metrics.jsonl"), wanted)]
        if failed := bool(wanted) and not figures:
            told += f"no loss to compare with {pack}/cpu_metrics.jsonl: the training logged none\n"
        figures += [*rasterizer_figures(work), *real_figures(_rows(work / "real/metrics.jsonl"))]
    keep(work, logs, out)
    told += "".join(f"{figure}\n" for figure in figures)
    (out / "summary.txt").write_text(told)
    print(f"\n==== summary of part {part}\n{told}", end="", flush=True)
    return int(failed or any(f.must and not f.met for f in figures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
