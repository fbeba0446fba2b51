"""Writes a trained avatar for viewers of 3DGS.

    python -m fg3dgs_jax.export --workdir runs/obama --out obama_ply

writes avatar.ply and one file for each region. With --audio also one .ply for each frame of speech.
"""

import argparse
import pathlib
import sys

from fg3dgs_jax.media import names
from fg3dgs_jax.system import faults

FILES = ("--workdir", "--audio", "--out", "--data")  # flags that name files and folders


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Reads the flags of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m fg3dgs_jax.export",
        description="Writes an avatar's Gaussians as .ply files, which viewers of 3DGS read.",
    )
    parser.add_argument(
        "--workdir", required=True, type=pathlib.Path, help="folder of a training run"
    )
    parser.add_argument(
        "--out", required=True, type=pathlib.Path, help="folder for the files, made if need be"
    )
    parser.add_argument(
        "--audio", type=pathlib.Path, help="also one file a frame as it speaks this sound"
    )
    parser.add_argument(
        "--every", type=int, default=1, help="with --audio: every so many-th frame (default: 1)"
    )
    parser.add_argument(
        "--data", type=pathlib.Path, help="the processed folder, if it has moved since training"
    )
    return parser.parse_args(names.joined(sys.argv[1:] if argv is None else argv, FILES))


def main(argv: list[str] | None = None) -> int:
    """Runs the program; returns 0 on success, 1 after one line on bad input."""
    flags = parse(argv)
    # Here, because it brings in JAX, which --help does not need.
    from fg3dgs_jax.synthesis.export import export

    def work():
        files = export(
            flags.workdir, flags.out, audio=flags.audio, data=flags.data, every=flags.every
        )
        print(f"{len(files)} files written to {flags.out}, avatar.ply among them")
        return 0

    return faults.run("export", work)


if __name__ == "__main__":
    sys.exit(main())
