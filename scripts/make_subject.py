"""Makes the processed folder of the embedded subject, and new speech for it to speak.

    python scripts/make_subject.py --out data/quickstart --speech data/quickstart_speech.wav

Files that are complete are left as they are.
"""

import argparse
import pathlib
import shutil
import sys
import time

from fg3dgs_jax.media import clock, video, windows
from fg3dgs_jax.synthetic import subject


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Reads the flags of the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=pathlib.Path, help="processed folder to make")
    parser.add_argument("--speech", type=pathlib.Path, help="WAV file of new speech to make")
    parser.add_argument(
        "--seconds", type=float, default=14.0, help="length of the clip (default: 14)"
    )
    parser.add_argument(
        "--size", type=int, default=192, help="height and width in px (default: 192)"
    )
    parser.add_argument(
        "--speech_seconds", type=float, default=8.0, help="length of the speech (default: 8)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="text and motion; the speech has the next one"
    )
    return parser.parse_args(argv)


def write_speech(path: pathlib.Path, seed: int, seconds: float) -> None:
    """Writes babble as 16 kHz mono WAV, whole or not at all."""
    samples, _ = subject.synthesize_speech(seed, seconds)
    video.write_wav(path, samples)


def main(argv: list[str] | None = None) -> int:
    """Runs the program; returns 0 on success, 1 after one line on bad input."""
    flags = parse(argv)
    try:
        if (flags.out / "meta.json").is_file():
            print(f"{flags.out} exists already; delete it to make it anew")
        else:
            start = time.perf_counter()
            frames = round(flags.seconds * clock.FPS)
            print(f"{flags.out}: {frames} frames of {flags.size}x{flags.size} px ...", flush=True)
            part = flags.out.with_name(f".{flags.out.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            subject.make_clip(
                part,
                seed=flags.seed,
                seconds=flags.seconds,
                size=flags.size,
                features={"mel": windows.mel_windows},
            )
            part.replace(flags.out)
            print(f"{flags.out}: made in {time.perf_counter() - start:.1f} s")
        if flags.speech and not flags.speech.is_file():
            flags.speech.parent.mkdir(parents=True, exist_ok=True)
            write_speech(flags.speech, flags.seed + 1, flags.speech_seconds)
            print(f"{flags.speech}: {flags.speech_seconds:g} s of new speech")
    except (ValueError, OSError) as error:
        print(f"make_subject: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
