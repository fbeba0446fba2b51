"""Trains a lip-sync expert on processed folders (also `python -m fg3dgs_jax.experts train_sync`).

    python -m fg3dgs_jax.experts train_sync --data data/a data/b --out runs/sync_expert

The last eleventh of every clip (the test split) is never learnt from: there the expert is tried at
all shifts, as it is on the clips given with --unseen, whose speakers it has not seen at all. Writes
`sync_expert.npz`, `report.json` and `score_by_shift.png`.
"""

import argparse
import json
import pathlib
import sys
import time

from tqdm import tqdm

from fg3dgs_jax.clip.open import open_clip
from fg3dgs_jax.evaluation import sync_plot
from fg3dgs_jax.lipsync import examples, expert, shift_scores
from fg3dgs_jax.lipsync import fit as fit_lib
from fg3dgs_jax.media import plots, video


def add_flags(parser) -> None:
    """Declares the flags on an argparse parser."""
    parser.add_argument(
        "--data",
        required=True,
        nargs="+",
        type=pathlib.Path,
        help="processed folders to learn from",
    )
    parser.add_argument(
        "--unseen", nargs="*", default=[], type=pathlib.Path,
        help="processed folders to try it on only",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("runs") / expert.NAME,
        help="folder to write (default: runs/sync_expert)",
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=int, default=400, help="at most so many steps (default: 400)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")


def sync_clip(folder) -> examples.SyncClip:
    """A processed folder as the expert sees and hears it."""
    clip = open_clip(folder)
    return examples.sync_clip(clip, video.read_wav(clip.path / "audio.wav"))


def train_sync(data, unseen, out, steps, seed) -> dict:
    """Everything but the flags; returns what `report.json` holds.

    Raises:
      ValueError: a folder that cannot be used, or two of one name; one line.
    """
    names = [p.resolve().name for p in (*data, *unseen)]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise ValueError(
            f"more than one folder is called {', '.join(twice)}; expected every clip once, each "
            "under its own name"
        )
    if steps < 1:
        raise ValueError(f"--steps is {steps}; expected 1 or more")
    clips, strangers = ([sync_clip(p) for p in paths] for paths in (data, unseen))
    ranges = [fit_lib.parts(len(c.mouths)) for c in clips]  # refuses before any work
    out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with tqdm(total=steps, desc="train_sync", unit="step") as bar:

        def show(row):
            bar.update(row["step"] - bar.n)
            bar.set_postfix(train=f"{row['train']:.2f}", held_out=f"{row['held_out']:.2f}")

        fit = fit_lib.fit(clips, steps, seed, show)
    seconds = time.perf_counter() - start
    expert.save(out / f"{expert.NAME}.npz", fit.variables)
    found = {}
    for clip, range_of in zip(clips, ranges, strict=True):
        found[f"{clip.name} (end, unseen)"] = _try(fit.variables, clip, *range_of.test)
    for clip in strangers:
        found[f"{clip.name} (speaker unseen)"] = _try(fit.variables, clip, 0, len(clip.mouths))
    picture = sync_plot.plot(
        found, "score against shift; share of 2 s runs that peak within one frame of 0"
    )
    plots.write_png(out / "score_by_shift.png", picture)
    told = {
        "expert": expert.NAME,
        "learnt_from": {c.name: r.train[1] for c, r in zip(clips, ranges, strict=True)},
        "best_step": fit.step,
        "seconds": round(seconds, 1),
        "calibration": [float(v) for v in fit.variables["calibration"]],
        "history": fit.history,
        "clips": found,
    }
    (out / "report.json").write_text(json.dumps(told, indent=1))
    return told


def _try(variables, clip, start, stop):
    similar = fit_lib.cosines(variables, clip, start, stop)
    return shift_scores.summary(expert.probability(variables, similar))


def run(flags) -> int:
    """The program after its flags; returns the exit code."""
    try:
        told = train_sync(flags.data, flags.unseen, flags.out, flags.steps, flags.seed)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    for name, found in told["clips"].items():
        print(
            f"{name}: {found['aligned']:.0%} of {found['runs']} runs of 2 s peak within a frame of "
            f"the true alignment; over all {found['frames']} frames the peak is at "
            f"{found['peak']:+d}, {found['contrast']:.2f} above the median, and "
            f"{found['steady']:.0%} of the runs agree with it"
        )
    print(
        f"{flags.out}: sync_expert.npz (step {told['best_step']}), report.json, score_by_shift.png"
    )
    return 0


def main(argv=None) -> int:
    """The program by itself; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m fg3dgs_jax.lipsync", description=__doc__.splitlines()[0]
    )
    add_flags(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
