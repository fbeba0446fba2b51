"""Fits a lip-sync expert to processed folders.

python -m fg3dgs_jax.lipsync fit --data data/a data/b --out runs/sync_expert

The last eleventh of every clip (the test split) is not trained on. The expert is tried there at all
shifts of the sound, and on the clips given with --unseen, whose speakers it does not know. Writes
`sync_expert.npz`, `report.json` and `score_by_shift.png`.
"""

import argparse
import pathlib
import sys


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0 only if the expert was fitted and written."""
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
    command = commands.add_parser("fit", help="train a lip-sync expert of your own")
    command.set_defaults(run=_fit)
    flag = command.add_argument
    folders = {"type": pathlib.Path, "metavar": "DIR"}
    flag("--data", required=True, nargs="+", help="processed folders to learn from", **folders)
    flag("--unseen", nargs="*", default=[], help="processed folders to try it on only", **folders)
    out = pathlib.Path("runs", "sync_expert")
    flag("--out", default=out, help=f"folder to write (default: {out})", **folders)
    flag("--steps", type=int, default=400, help="at most so many steps (default: 400)")
    flag("--seed", type=int, default=0, help="of everything random (default: 0)")


def _fit(args) -> int:
    from fg3dgs_jax.lipsync.fit_folders import fit_folders  # here, for it loads JAX

    try:
        report = fit_folders(args.data, args.out, args.unseen, args.steps, args.seed)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    for name, scores in report["clips"].items():
        print(
            f"{name}: {scores['aligned']:.0%} of {scores['runs']} runs of 2 s peak within a frame "
            f"of the true alignment; over all {scores['frames']} frames the peak is at "
            f"{scores['peak']:+d}, {scores['contrast']:.2f} above the median, and "
            f"{scores['steady']:.0%} of the runs agree with it"
        )
    step = report["best_step"]
    print(f"{args.out}: sync_expert.npz (step {step}), report.json, score_by_shift.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
