"""Measures a trained avatar on frames it was not trained on.

    python -m fg3dgs_jax.evaluate --workdir runs/obama

writes metrics.json, per_frame.csv, comparison.mp4, contact_sheet.png, moments.png, opening.png and
report.html.

    python -m fg3dgs_jax.evaluate --workdir runs/obama --drive a.mp4 b.mp4

lets the avatar speak the sound of other people's videos and compares its lips with theirs: writes
drive.json, drive.csv, drive.png and a side-by-side video of each.

    python -m fg3dgs_jax.evaluate --video render.mp4 --truth recording.mp4

judges any video, whoever made it, against the recording. Sizes, rates, lengths and offsets may
differ. Without --truth it measures what needs none. Writes metrics.json, report.html and pictures.
"""

import argparse
import pathlib
import sys

from fg3dgs_jax.system import faults, programs


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Reads the flags of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m fg3dgs_jax.evaluate",
        description="Measures a trained avatar; writes metrics.json and a report.",
    )
    parser.add_argument("--workdir", type=pathlib.Path, help="folder of a training run")
    parser.add_argument(
        "--video", type=pathlib.Path, help="in place of a workdir: a finished video to judge"
    )
    parser.add_argument(
        "--truth", type=pathlib.Path, help="the recording that --video should look like"
    )
    parser.add_argument(
        "--split",
        default="test",
        choices=("test", "train", "all"),
        help="frames to measure (default: test)",
    )
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        help="folder for the results (default: WORKDIR/eval_SPLIT, WORKDIR/eval_drive, or "
        "VIDEO_judged)",
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
    parser.add_argument(
        "--drive",
        nargs="+",
        type=pathlib.Path,
        metavar="VIDEO",
        help="instead: speak the sound of these videos, and compare the lips with theirs",
    )
    flags = parser.parse_args(argv)
    if (flags.workdir is None) == (flags.video is None):
        parser.error("expected one of --workdir and --video")
    if flags.truth and not flags.video:
        parser.error("--truth is compared with a --video; leave it out, or name one")
    others = ("on_mp4", "lpips_vgg", "sync_expert")
    given = [f"--{name}" for name in others if getattr(flags, name)]
    given += ["--split"] * (flags.split != parser.get_default("split"))
    if flags.drive and given:
        parser.error(f"--drive measures driven lips only; leave out {', '.join(given)}")
    given = [name for name in given if name != "--lpips_vgg"]
    given += [f"--{name}" for name in ("drive", "data") if getattr(flags, name)]
    if flags.video and given:
        parser.error(f"--video needs no avatar; leave out {', '.join(given)}")
    return flags


def main(argv: list[str] | None = None) -> int:
    """Runs the program; returns 0 on success, 1 after one line on bad input."""
    flags = parse(argv)
    # Here, because they bring in JAX, which --help does not need.
    from fg3dgs_jax.evaluation import drive, judge, report, run

    programs.keep()

    options = vars(flags)
    videos, film, truth = (options.pop(name) for name in ("drive", "video", "truth"))

    def work():
        if videos:
            result = drive.drive(flags.workdir, videos, out=flags.out, data=flags.data)
            print("\n".join(drive.table(result)))
            print(f"written to {drive.result_folder(flags.workdir, flags.out)}")
            return 0
        if film:
            result = judge.judge(film, truth, out=flags.out, lpips_vgg=flags.lpips_vgg)
            folder = judge.result_folder(film, flags.out)
        else:
            result = run.evaluate(**options)
            folder = run.result_folder(flags.workdir, flags.split, flags.out)
        for name, value, source in report.flatten(result):
            print(f"{name:44s} {value:>14s}  {source}")
        print(f"written to {folder}")
        return 0

    return faults.run("evaluate", work)


if __name__ == "__main__":
    sys.exit(main())
