"""Fits a lip prior and a lip-sync expert to videos, or processed folders, of many speakers.

python -m fg3dgs_jax.lipsync fit --data A.mp4 B.mp4 data/c ... --out runs/lips

The prior is judged on folds without common speakers. Of eight speakers or more the expert is judged
on some that it did not learn from, of fewer on the ends of the clips, and on clips given with
--unseen. Writes `lip_prior.npz` and `sync_expert.npz`, each with a report (`.json`), and pictures
`lip_curves.png` and `score_by_shift.png`. What was read of the clips is kept in OUT/clips.
"""

import argparse
import pathlib
import sys

from fg3dgs_jax.system import faults

PRIOR, EXPERT = "prior", "expert"


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0 only if all that was asked for was fitted and written."""
    parser = argparse.ArgumentParser(
        prog="python -m fg3dgs_jax.lipsync",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_fit(commands)
    args = parser.parse_args(argv)
    return args.run(args)


def _add_fit(commands):
    command = commands.add_parser("fit", help="train a lip prior and a lip-sync expert of your own")
    command.set_defaults(run=_fit)
    flag = command.add_argument
    paths = {"type": pathlib.Path, "metavar": "PATH"}
    flag("--data", required=True, nargs="+", help="videos or processed folders", **paths)
    out = pathlib.Path("runs", "lips")
    flag("--out", default=out, type=pathlib.Path, metavar="DIR", help=f"to write (default: {out})")
    flag(
        "--speakers",
        help="who speaks: a tab-separated file with the columns file and speaker "
        "(default: every clip has a speaker of its own)",
        type=pathlib.Path,
        metavar="TSV",
    )
    flag("--unseen", nargs="*", default=[], help="clips to try the expert on only", **paths)
    flag("--only", choices=(PRIOR, EXPERT), help="one of the two (default: both)")
    flag("--steps", type=int, help="at most so many for each (default: each its own)")
    flag("--seed", type=int, default=0, help="of everything random (default: 0)")


def _fit(args) -> int:
    def work():
        if args.only != EXPERT:
            _fit_prior(args)
        if args.only != PRIOR:
            _fit_expert(args)
        return 0

    return faults.run("error", work, "what was read of the clips is kept")


def _fit_prior(args):
    from fg3dgs_jax.lipsync import fit_prior  # here, for it loads JAX

    steps = fit_prior.STEPS if args.steps is None else args.steps
    report = fit_prior.fit_prior(args.data, args.out, args.speakers, steps, args.seed)
    curves = ("opening", "width", "protrusion", "f1")
    width = max(len(name) for name in ("clip", "mean", *report["clips"]))
    print(f"{'clip':{width}}  lag" + "".join(f"{name:>12}" for name in curves))
    rows = [(name, f"{row['lag']:+4d} ", row) for name, row in report["clips"].items()]
    for name, lag, row in [*rows, ("mean", 5 * " ", report["mean"])]:
        values = "".join(f"{_number(row.get(curve)):>12}" for curve in curves)
        left_out = "  left out: its lips do not fit its sound" if name in report["left_out"] else ""
        print(f"{name:{width}}  {lag}{values[1:]}{left_out}")
    print(f"{args.out}: lip_prior.npz, lip_prior.json, lip_curves.png")


def _fit_expert(args):
    from fg3dgs_jax.lipsync import fit_expert  # here, for it loads JAX

    sources = fit_expert.Sources(args.data, args.unseen, args.speakers)
    steps = fit_expert.STEPS if args.steps is None else args.steps
    report = fit_expert.fit_expert(sources, args.out, steps, args.seed)
    for name, scores in report["clips"].items():
        print(
            f"{name}: {scores['aligned']:.0%} of {scores['runs']} runs of 2 s peak within a frame "
            f"of the true alignment; over all {scores['frames']} frames the peak is at "
            f"{scores['peak']:+d}, {scores['contrast']:.2f} above the median, and "
            f"{scores['steady']:.0%} of the runs agree with it"
        )
    if not report["clips"]:
        print("nothing was judged: the ends of the clips are too short. Give clips with --unseen")
    picture = ", score_by_shift.png" if report["clips"] else ""
    print(f"{args.out}: sync_expert.npz (step {report['best_step']}), sync_expert.json{picture}")


def _number(value):
    return "-" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main())
