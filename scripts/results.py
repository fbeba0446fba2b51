"""Trains and measures the method and its ablations on several clips; writes the table of results.

    python scripts/results.py --data data/obama data/french data/lieu256 \\
        --variants cpu cpu,no_fad cpu,no_fam cpu,single cpu,no_hrpa --out runs/results \\
        --sync_expert runs/sync/sync_expert.npz --drive others/*.mp4

The first variant is the full method, the others are compared with it. Every run is a workdir
OUT/CLIP_VARIANT (its commas as underscores), one after the other. Finished runs are skipped, and an
interrupted run continues. Prints the table and writes it to OUT/results.md; docs/results.md
explains its rows and columns. Run from the repository's root.
"""

import argparse
import json
import math
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

STILL = "best still image"
DRIVEN = "eval_drive/drive.json"


# A run's metrics.json, or None where it has not been measured.
Metrics = dict | None
# {clip: {variant: metrics}}
Results = dict[str, dict[str, Metrics]]


class Column(NamedTuple):
    """A figure of metrics.json and how it is shown."""

    title: str
    name: str  # key of metrics.json, "outer.inner" for one inside another
    digits: int
    badness: Callable[[float], float] | None = None  # less is better; None: not of quality


def more(value: float) -> float:
    """More is better."""
    return -value


def less(value: float) -> float:
    """Less is better."""
    return value


def near_one(value: float) -> float:
    """One is best. Half as much and twice as much are equally far."""
    return abs(math.log(value)) if value > 0 else math.inf


COLUMNS = (
    Column("PSNR", "psnr", 2, more),
    Column("SSIM", "ssim", 4, more),
    Column("LPIPS", "lpips", 4, less),
    Column("LMD", "lmd", 3, less),
    Column("lips PSNR", "lips_psnr", 2, more),
    Column("eyes PSNR", "eyes_psnr", 2, more),
    Column("own sync", "own_sync.score", 3, more),
    Column("driven opening", "driven.mean.opening", 2, more),
    Column("driven width", "driven.mean.width", 2, more),
    Column("driven closures F1", "driven.mean.f1", 2, more),
    Column("temporal", "temporal.frame_ratio", 2, near_one),
    Column("temporal, lips", "temporal.lips_ratio", 2, near_one),
    Column("temporal, eyes", "temporal.eyes_ratio", 2, near_one),
    Column("training, s", "train_seconds", 0),
    Column("frames/s", "fps", 0),
)


def figure(metrics: Metrics, name: str) -> float | None:
    """Returns one figure, or None where it is missing."""
    value: Any = metrics
    for key in name.split("."):
        value = (value or {}).get(key)
    return value


def still_row(metrics: Metrics) -> dict:
    """Returns the figures of the best still image, as if it were a run."""
    start = "still_"
    return {k.removeprefix(start): v for k, v in (metrics or {}).items() if k.startswith(start)}


def line(cells: Iterable[str]) -> str:
    """Returns one line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def clip_table(clip: str, runs: dict[str, Metrics]) -> list[str]:
    """Returns the table of one clip as lines of Markdown; runs: metrics of each variant."""
    measured = [m for m in runs.values() if m]
    if not measured:
        return [f"### {clip}", "", "No run has been measured."]
    one = measured[0]
    height, width = one["resolution"]
    title = f"### {clip}: {one['frames']} test frames of {width} x {height}"
    truth = figure(one, "own_sync.truth_score")
    if truth is not None:
        title += f"; own sync score of the true frames {truth:.3f}"
    full, *others = runs
    rows = {STILL: still_row(one), f"{full} (full method)": runs[full]}
    rows |= {name: runs[name] for name in others}
    out = [title, "", line(["", *(c.title for c in COLUMNS)]), line(["---"] * (len(COLUMNS) + 1))]
    for name, metrics in rows.items():
        values = [(figure(metrics, c.name), c.digits) for c in COLUMNS]
        out.append(line([name, *("-" if v is None else f"{v:.{d}f}" for v, d in values)]))
    return out


def comparison(results: Results) -> list[str]:
    """Returns lines of Markdown: on how many clips the first variant is better than each other row.

    Clips count on which both were measured.
    """
    variants = list(next(iter(results.values())))
    full, others = variants[0], [STILL, *variants[1:]]
    out = [f"### On how many clips `{full}` is better than", ""]
    out += [line(["", *others]), line(["---"] * (len(others) + 1))]
    for column in (c for c in COLUMNS if c.badness):
        cells = []
        for other in others:
            wins = [better(column, runs, full, other) for runs in results.values()]
            known = [w for w in wins if w is not None]
            cells.append(f"{sum(known)} of {len(known)}" if known else "-")
        out.append(line([column.title, *cells]))
    return out


def better(column: Column, runs: dict[str, Metrics], full: str, other: str) -> bool | None:
    """Returns whether `full` is better than `other` on one clip; None where one is not known."""
    against = still_row(runs[full]) if other == STILL else runs[other]
    ours, theirs = figure(runs[full], column.name), figure(against, column.name)
    if ours is None or theirs is None or column.badness is None:
        return None
    return column.badness(ours) < column.badness(theirs)


def table(results: Results) -> str:
    """Returns the whole Markdown."""
    parts = [clip_table(clip, runs) for clip, runs in results.items()]
    return "\n\n".join("\n".join(p) for p in [*parts, comparison(results)]) + "\n"


def read(path: pathlib.Path) -> dict | None:
    """Returns the dict of a JSON file, or None where there is no file."""
    return json.loads(path.read_text()) if path.exists() else None


def metrics_of(workdir: pathlib.Path) -> Metrics:
    """Returns the metrics of a workdir, with those of driven lips as `driven`."""
    metrics, driven = read(workdir / "eval_test" / "metrics.json"), read(workdir / DRIVEN)
    return metrics and {**metrics, "driven": driven}


def is_driven(workdir: pathlib.Path, videos: list[pathlib.Path]) -> bool:
    """Returns whether the avatar of a workdir, as it is now, has spoken the sound of `videos`."""
    driven, avatar = read(workdir / DRIVEN), workdir / "avatar.npz"
    if not driven or not avatar.exists():
        return False
    if (workdir / DRIVEN).stat().st_mtime < avatar.stat().st_mtime:
        return False
    rows = {*(row["name"] for row in driven["videos"]), *driven["left_out"]}
    return rows == {video.stem for video in videos}


def is_measured(workdir: pathlib.Path, sync_expert: pathlib.Path | None) -> bool:
    """Returns whether a workdir has all figures, of its last training and of this expert."""
    trained, metrics = read(workdir / "train.json"), metrics_of(workdir)
    if not trained or not metrics or metrics["train_seconds"] != trained["train_seconds"]:
        return False
    judged = not sync_expert or f"({sync_expert})" in metrics["weights"].get("own_sync", "")
    return judged and "temporal" in metrics


def run(flags: argparse.Namespace, data: pathlib.Path, variant: str, workdir: pathlib.Path) -> bool:
    """Trains and measures one variant on one clip; returns whether both succeeded."""
    # A workdir that is trained too: `train` refuses one whose config has changed.
    train = ["fg3dgs_jax.train", f"--config={flags.config}:{variant}", f"--workdir={workdir}"]
    train += [f"--config.data.path={data}", f"--config.name={workdir.name}"]
    train += [f"--config.{setting}" for setting in flags.set]
    print(f"== {workdir}", flush=True)
    if subprocess.run([sys.executable, "-m", *train]).returncode:
        return False
    measure = [sys.executable, "-m", "fg3dgs_jax.evaluate", f"--workdir={workdir}"]
    if not is_measured(workdir, flags.sync_expert):
        expert = [f"--sync_expert={flags.sync_expert}"] if flags.sync_expert else []
        if subprocess.run([*measure, *expert]).returncode:
            return False
    if flags.drive and not is_driven(workdir, flags.drive):
        return not subprocess.run([*measure, "--drive", *map(str, flags.drive)]).returncode
    return True


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Reads the flags of the program."""
    parser = argparse.ArgumentParser(
        prog="python scripts/results.py", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--data", nargs="+", required=True, type=pathlib.Path, help="processed folders"
    )
    parser.add_argument(
        "--variants", nargs="+", required=True, help="of the config, the full method first"
    )
    parser.add_argument("--out", required=True, type=pathlib.Path, help="folder of all runs")
    parser.add_argument("--config", default="configs/obama.py", help="default: %(default)s")
    parser.add_argument(
        "--sync_expert", type=pathlib.Path, metavar="FILE.npz", help="see evaluate --help"
    )
    parser.add_argument(
        "--drive",
        nargs="+",
        default=[],
        type=pathlib.Path,
        metavar="VIDEO",
        help="also let every avatar speak their sound, and compare the lips: see evaluate --help",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="passed to train as --config.KEY=VALUE; may be repeated",
    )
    parser.add_argument(
        "--table_only", action="store_true", help="only the table, of what has been measured"
    )
    flags = parser.parse_args(argv)
    names = [path.stem for path in flags.data]
    for what, given in (("--data", names), ("--variants", flags.variants)):
        if len(set(given)) < len(given):
            parser.error(f"{what} has the same name twice: {' '.join(given)}")
    return flags


def main(argv: list[str] | None = None) -> int:
    """Returns 0 on success, 1 where a run failed (it is named at the end, its row is empty)."""
    flags = parse(argv)
    failed, results = [], {}
    for data in flags.data:
        runs = results[data.stem] = {}
        for variant in flags.variants:
            workdir = flags.out / "_".join([data.stem, *variant.split(",")])
            done = flags.table_only or run(flags, data, variant, workdir)
            failed += [] if done else [str(workdir)]
            runs[variant] = metrics_of(workdir) if done else None
    text = table(results)
    flags.out.mkdir(parents=True, exist_ok=True)
    (flags.out / "results.md").write_text(text)
    print(text)
    if failed:
        print(f"results: failed, see above: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
