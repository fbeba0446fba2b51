"""Measures a trained avatar on frames it was not trained on.

    python -m fg3dgs_jax.evaluate --workdir runs/obama

writes metrics.json, per_frame.csv, comparison.mp4, contact_sheet.png, moments.png, opening.png and
report.html.
"""

import argparse
import pathlib
import sys


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Reads the flags of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m fg3dgs_jax.evaluate",
        description="Measures a trained avatar; writes metrics.json and a report.",
    )
    parser.add_argument(
        "--workdir", required=True, type=pathlib.Path, help="folder of a training run"
    )
    parser.add_argument(
        "--split",
        default="test",
        choices=("test", "train", "all"),
        help="frames to measure (default: test)",
    )
    parser.add_argument(
        "--out", type=pathlib.Path, help="folder for the results (default: WORKDIR/eval_SPLIT)"
    )
    parser.add_argument(
        "--data", type=pathlib.Path, help="the processed folder, if it has moved since training"
    )
    parser.add_argument(
        "--on_mp4", action="store_true", help="also measure after H.264, as the field's tables do"
    )
    parser.add_argument(
        "--lpips_vgg",
        action="store_true",
        help="also LPIPS with VGG-16: seconds a frame on a CPU",
    )
    parser.add_argument(
        "--sync_expert",
        type=pathlib.Path,
        metavar="FILE.npz",
        help="also the score of your own lip-sync expert (see: lipsync fit)",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Runs the program; returns 0 on success, 1 after one line on bad input."""
    flags = parse(argv)
    # Here, because they bring in JAX, which --help does not need.
    from fg3dgs_jax.evaluation import report, run

    try:
        result = run.evaluate(**vars(flags))
    except (ValueError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    for name, value, source in report.flatten(result):
        print(f"{name:44s} {value:>14s}  {source}")
    print(f"written to {run.result_folder(flags.workdir, flags.split, flags.out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
