"""Makes the embedded subject's processed folder and new speech for it to say.

    python scripts/make_subject.py --out data/quickstart --speech data/quickstart_speech.wav

What is complete already is left as it is.
"""

import argparse
import pathlib
import shutil
import sys
import time
import wave

from fg3dgs_jax.media import clock, windows
from fg3dgs_jax.synthetic import subject


def parse(argv):
    """Flags of the program."""
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


def write_speech(path, seed, seconds):
    """Writes babble as 16 kHz mono WAV."""
    samples, _ = subject.synthesize_speech(seed, seconds)
    part = path.with_name(f".{path.name}.part")
    with wave.open(str(part), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(clock.SAMPLE_RATE)
        out.writeframes(samples.astype("<i2").tobytes())
    part.replace(path)


def main(argv=None) -> int:
    """Runs the program; 0 on success, 1 with one line on bad input."""
    flags = parse(argv)
    try:
        if (flags.out / "meta.json").is_file():
            print(f"{flags.out} is there already; delete it to make it anew")
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
