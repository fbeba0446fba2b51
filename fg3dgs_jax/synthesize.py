"""Makes a trained avatar speak any sound.

    python -m fg3dgs_jax.synthesize --workdir runs/obama --audio speech.wav --out talk.mp4

Head poses, torso, background, blinks and gaze come from the training clip, played forwards and
backwards. The mouth follows the sound. Poses, blinks, expression and how far the mouth moves can be
set: by a number, or by a curve in a CSV file, a row a frame.

    python -m fg3dgs_jax.synthesize --verify talk.mp4

reads back what a video says about itself.
"""

import argparse
import pathlib
import sys
from typing import TYPE_CHECKING

from fg3dgs_jax.media import names
from fg3dgs_jax.system import faults, programs

if TYPE_CHECKING:
    from fg3dgs_jax.avatar.controls import Controls

FILES = ("--workdir", "--audio", "--out", "--data", "--verify")  # flags that name files and folders


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Reads the flags of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m fg3dgs_jax.synthesize",
        description="Makes a trained avatar speak any sound: a video at 25 fps.",
    )
    parser.add_argument("--workdir", type=pathlib.Path, help="folder of a training run")
    parser.add_argument("--audio", type=pathlib.Path, help="any audio or video file, of any length")
    parser.add_argument(
        "--audio_track",
        type=int,
        metavar="N",
        help="sound track of --audio, 1 for the first (default: the one that players take)",
    )
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        help="the video to write: .mp4, .mov, .mkv (H.264 + AAC) or .webm (VP9 + Opus); its folder "
        "is made if need be",
    )
    parser.add_argument(
        "--split",
        default="train",
        choices=("train", "test", "all"),
        help="frames that lend the poses (default: train)",
    )
    parser.add_argument(
        "--data", type=pathlib.Path, help="the processed folder, if it has moved since training"
    )
    parser.add_argument(
        "--crf", type=int, default=18, help="x264 quality, 0 (lossless) to 51 (default: 18)"
    )
    parser.add_argument(
        "--check", action="store_true", help="also print how well the mouth follows the sound"
    )
    parser.add_argument(
        "--size",
        type=int,
        metavar="PX",
        help="longer side of the picture, at most that of the folder (default: as in training)",
    )
    parser.add_argument(
        "--pose",
        default="clip",
        choices=("clip", "still"),
        help="the clip's poses, played forth and back, or the most usual one (default: clip)",
    )
    parser.add_argument(
        "--blink",
        default="clip",
        metavar="HOW",
        help="clip, natural, none, or how far the lids are shut: 0 to 1 or a CSV file "
        "(default: clip)",
    )
    parser.add_argument(
        "--expression",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="channels of the expression, such as AU01=0.8 or gaze_x=look.csv, as shares of what "
        "the clip showed: 0 the least, 1 the most",
    )
    parser.add_argument(
        "--eyes",
        type=pathlib.Path,
        metavar="FILE.csv",
        help="gaze and blinks: a CSV file with any of the columns gaze_x, gaze_y, AU45, 0 to 1",
    )
    parser.add_argument(
        "--mouth_gain",
        default="1",
        metavar="GAIN",
        help="how far lips and jaw move: 0 to 2 or a CSV file; 1 as learnt (default: 1)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the natural blinks (default: 0)")
    parser.add_argument(
        "--verify",
        type=pathlib.Path,
        metavar="VIDEO",
        help="instead: tell what a video of this program says about itself",
    )
    argv = names.joined(sys.argv[1:] if argv is None else argv, FILES)
    flags = parser.parse_args(argv)
    needed = [name for name in ("workdir", "audio", "out") if getattr(flags, name) is None]
    if needed and not flags.verify:
        parser.error(f"missing: {', '.join(f'--{name}' for name in needed)}")
    if flags.size is not None and flags.size < 32:
        parser.error(f"--size is {flags.size}; expected 32 or more px")
    if not 0 <= flags.crf <= 51:
        parser.error(f"--crf is {flags.crf}; expected 0 (lossless) to 51")
    return flags


def controls_of(flags: argparse.Namespace) -> "Controls":
    """The controls that the flags name.

    Raises:
      ValueError: a value that is neither a word, a number nor a CSV file.
    """
    # Here, because it brings in NumPy, which --help does not need.
    from fg3dgs_jax.avatar import controls as lib

    expression = {}
    for setting in flags.expression:
        name, _, value = setting.partition("=")
        expression[name] = lib.read_curve(value, name)
    if flags.eyes:
        expression |= lib.read_columns(flags.eyes, ("gaze_x", "gaze_y", lib.BLINK))
    return lib.Controls(
        split=flags.split,
        size=flags.size,
        pose=flags.pose,
        blink=flags.blink if flags.blink in lib.BLINKS else lib.read_curve(flags.blink, "blink"),
        expression=expression,
        mouth_gain=lib.read_curve(flags.mouth_gain, "mouth_gain"),
        seed=flags.seed,
    )


def main(argv: list[str] | None = None) -> int:
    """Runs the program; returns 0 on success, 1 after one line on bad input."""
    flags = parse(argv)
    # Here, because they bring in JAX, which --help does not need.
    from fg3dgs_jax.media import video
    from fg3dgs_jax.media.clock import FPS
    from fg3dgs_jax.synthesis import provenance
    from fg3dgs_jax.synthesis.run import synthesize

    programs.keep()

    def work():
        if flags.verify:
            print("\n".join(provenance.verify(flags.verify)))
            return 0
        sound = video.SoundFile(flags.audio, flags.audio_track)
        talk = synthesize(
            flags.workdir,
            sound,
            flags.out,
            data=flags.data,
            crf=flags.crf,
            check=flags.check,
            controls=controls_of(flags),
        )
        for note in talk.notes:
            print(f"synthesize: {note}", file=sys.stderr)
        if talk.verdict:
            print(talk.verdict)
        frames, length = talk.num_frames, talk.num_frames / FPS
        speed = f"{talk.seconds:.1f} s, {frames / talk.seconds:.1f} frames/s"
        print(f"{talk.path}: {frames} frames ({length:.2f} s) in {speed}")
        return 0

    return faults.run("synthesize", work)


if __name__ == "__main__":
    sys.exit(main())
