"""Makes a trained avatar speak any sound.

    python -m fg3dgs_jax.synthesize --workdir runs/obama --audio speech.wav --out talk.mp4

Head poses, torso, background, blinks and gaze come from the training clip, played forwards and
backwards. The mouth follows the sound.
"""

import argparse
import pathlib
import sys

from fg3dgs_jax.media import names
from fg3dgs_jax.system import faults, programs

FILES = ("--workdir", "--audio", "--out", "--data")  # flags that name files and folders


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Reads the flags of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m fg3dgs_jax.synthesize",
        description="Makes a trained avatar speak any sound: a video at 25 fps.",
    )
    parser.add_argument(
        "--workdir", required=True, type=pathlib.Path, help="folder of a training run"
    )
    parser.add_argument(
        "--audio", required=True, type=pathlib.Path, help="any audio or video file, of any length"
    )
    parser.add_argument(
        "--audio_track",
        type=int,
        metavar="N",
        help="sound track of --audio, 1 for the first (default: the one that players take)",
    )
    parser.add_argument(
        "--out",
        required=True,
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
    argv = names.joined(sys.argv[1:] if argv is None else argv, FILES)
    flags = parser.parse_args(argv)
    if not 0 <= flags.crf <= 51:
        parser.error(f"--crf is {flags.crf}; expected 0 (lossless) to 51")
    return flags


def main(argv: list[str] | None = None) -> int:
    """Runs the program; returns 0 on success, 1 after one line on bad input."""
    flags = parse(argv)
    # Here, because they bring in JAX, which --help does not need.
    from fg3dgs_jax.media import video
    from fg3dgs_jax.media.clock import FPS
    from fg3dgs_jax.synthesis.run import synthesize

    programs.keep()

    def work():
        given = vars(flags)
        sound = video.SoundFile(given.pop("audio"), given.pop("audio_track"))
        talk = synthesize(audio=sound, **given)
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
