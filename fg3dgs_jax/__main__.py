"""Lists the programs of the package.

python -m fg3dgs_jax
"""

import argparse
import sys

PROGRAMS = {
    "preprocess": "any video with sound -> a processed folder, with a report",
    "train": "a processed folder -> an avatar, with checkpoints and metrics",
    "evaluate": "measures an avatar on held-out frames: metrics, video, report",
    "synthesize": "makes an avatar speak any sound: an mp4",
    "export": "writes an avatar as .ply files, which viewers of 3DGS read",
    "doctor": "tells what is installed, what is missing, and how fast this machine is",
    "weights": "lists, fetches, converts and checks pretrained networks",
    "lipsync": "fits a lip prior and a lip-sync expert to clips of many people",
}


def main(argv: list[str] | None = None) -> int:
    """Prints the list; returns 0."""
    width = max(map(len, PROGRAMS))
    lines = [f"  {name:{width}}  {what}" for name, what in PROGRAMS.items()]
    parser = argparse.ArgumentParser(
        prog="python -m fg3dgs_jax",
        usage="python -m fg3dgs_jax.PROGRAM [FLAGS]",
        description="Talking heads from 3D Gaussians. The programs:\n\n" + "\n".join(lines),
        epilog="Each has --help. In Python: import fg3dgs_jax; help(fg3dgs_jax)",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument("-h", "--help", action="store_true", help=argparse.SUPPRESS)
    parser.parse_args(argv)
    parser.print_help()
    return 0


if __name__ == "__main__":
    sys.exit(main())
