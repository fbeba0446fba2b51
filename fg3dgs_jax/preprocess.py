"""Any video with sound -> a processed folder (see clip/format.py), ending with report.html.

    python -m fg3dgs_jax.preprocess --video V --out data/ID --consent self
    python -m fg3dgs_jax.preprocess --import DIR --out data/ID --consent self    # AD-NeRF's layout
    python -m fg3dgs_jax.preprocess --pack data/ID     # -> data/ID.fg3dgs, one file to travel
    python -m fg3dgs_jax.preprocess --unpack ID.fg3dgs --out data/ID

Interrupted work goes on where it stopped: a step whose files are whole, for the same video and
options, is not done again.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from fg3dgs_jax.experts.audio import audio_features
from fg3dgs_jax.media import names
from fg3dgs_jax.preprocessing.check import framing
from fg3dgs_jax.preprocessing.label import parsers
from fg3dgs_jax.preprocessing.settings import (
    AUTO,
    CONSENTS,
    EMOTIONS,
    PreprocessSettings,
    SettingError,
)
from fg3dgs_jax.system import faults

DESCRIPTION = (
    "Any video with sound -> a processed folder (see clip/format.py), ending with report.html."
)
SOURCES = ("video", "import", "pack", "unpack")
FILES = (*(f"--{name}" for name in SOURCES), "--out", "--expression")  # flags that name files


def flags() -> argparse.ArgumentParser:
    """The program's flags."""
    parser = argparse.ArgumentParser(
        prog="python -m fg3dgs_jax.preprocess", description=DESCRIPTION
    )
    parser.add_argument("--video", help="video file with sound, any rate and size")
    parser.add_argument(
        "--import",
        metavar="DIR",
        help="instead of a video: a folder in the layout of AD-NeRF, ER-NeRF or TalkingGaussian",
    )
    parser.add_argument(
        "--pack", metavar="DIR", help="write a processed folder as one file: DIR.fg3dgs, or --out"
    )
    parser.add_argument(
        "--unpack", metavar="FILE", help="make the processed folder --out of such a file"
    )
    parser.add_argument("--out", help="processed folder to write, e.g. data/ID")
    parser.add_argument(
        "--check_only",
        action="store_true",
        help="only judge the video, from a sample of it, and write nothing",
    )
    parser.add_argument(
        "--size",
        type=int,
        metavar="PX",
        help="crop to the head and resize to PX x PX; 0: keep the picture as it is (default: keep "
        f"it up to {framing.KEEP_UP_TO} px, else {framing.SIZE})",
    )
    parser.add_argument(
        "--av_offset",
        type=_offset,
        default=AUTO,
        metavar="auto|SECONDS",
        help="by how much the video's sound is late (negative: early); it is moved back by that. "
        "0: it stays as it is; auto: the lips decide, where they are certain (default)",
    )
    parser.add_argument(
        "--audio_track",
        type=int,
        metavar="N",
        help="sound track of the video, 1 for the first (default: the one that players take)",
    )
    parser.add_argument(
        "--consent",
        choices=CONSENTS,
        help="ground on which the person's likeness is used (default: asked on a terminal)",
    )
    parser.add_argument(
        "--features",
        metavar="NAME,NAME",
        help=f"audio features, comma-separated: {', '.join(audio_features.EXTRACTORS)} (default: "
        "mel, and whisper if its weights are installed)",
    )
    parser.add_argument(
        "--parser",
        choices=parsers.NAMES,
        default="auto",
        help="who labels the pixels; auto: the first of "
        f"{', '.join(parsers.NAMES[1:])} whose weights are found (default)",
    )
    parser.add_argument(
        "--start",
        type=float,
        default=0.0,
        metavar="S",
        help="use the video from this second on (default: from its beginning)",
    )
    parser.add_argument(
        "--end",
        type=float,
        metavar="S",
        help="use the video up to this second of it (default: to its end)",
    )
    parser.add_argument(
        "--max_seconds",
        type=float,
        help="use only the first so many seconds from --start on (default: all)",
    )
    parser.add_argument(
        "--expression",
        metavar="FILE.csv",
        help="OpenFace's CSV of this video: its action units instead of the blendshapes' proxies",
    )
    parser.add_argument(
        "--emotion",
        choices=EMOTIONS,
        help="network of the emotion channels (default: fer where its weights are, else none)",
    )
    return parser


def _offset(text: str) -> str | float:
    try:
        return AUTO if text == AUTO else float(text)
    except ValueError:
        message = f"found {text!r}; expected {AUTO} or a number of seconds, e.g. 0.28"
        raise argparse.ArgumentTypeError(message) from None


def _settings(parser: argparse.ArgumentParser, args: argparse.Namespace) -> PreprocessSettings:
    """The settings that the flags give; refuses contradictions and values that are not allowed."""
    given = [f"--{name}" for name in SOURCES if getattr(args, name)]
    if len(given) != 1:
        choices = " or ".join(f"--{name}" for name in SOURCES)
        parser.error(f"found {' and '.join(given) or 'no source'}; expected {choices}, one of them")
    features = args.features
    if features is not None:
        features = tuple(name.strip() for name in features.split(",") if name.strip())
    try:
        settings = PreprocessSettings(
            features=features,
            emotion=args.emotion,
            expression=args.expression,
            parser=args.parser,
            start=args.start,
            end=args.end,
            max_seconds=args.max_seconds,
            size=args.size,
            av_offset=args.av_offset,
            audio_track=args.audio_track,
        )
    except SettingError as error:
        parser.error(f"--{error}")
    of_videos = ["check_only"] * args.check_only + settings.of_videos_only()
    if of_videos and not args.video:
        names = ", ".join(f"--{name}" for name in of_videos)
        parser.error(f"{names} goes with --video only; found {given[0]}")
    if not (args.out or args.pack or args.check_only):
        parser.error("--out is missing; give the folder to write, e.g. data/ID")
    return settings


def _ask_consent(parser: argparse.ArgumentParser) -> str:
    if not sys.stdin.isatty():
        parser.error(f"--consent is missing; expected the ground, one of {', '.join(CONSENTS)}")
    for name, meaning in CONSENTS.items():
        print(f"  {name}: {meaning}")
    answer = input("On what ground may this person's likeness be used? ").strip()
    if answer not in CONSENTS:
        parser.error(f"consent is {answer!r}; expected one of {', '.join(CONSENTS)}")
    return answer


def _work(args, consent, settings) -> str:
    """Does what the flags ask for; returns what to print at the end."""
    # Here and not above: `--help` and wrong flags are answered without the start of these.
    from fg3dgs_jax.clip import pack
    from fg3dgs_jax.preprocessing import run

    if args.check_only:
        return run.check_video(args.video, settings)
    if args.pack:
        return f"done; look at {pack.pack(args.pack, args.out)}"
    if args.unpack:
        return f"done; look at {pack.unpack(args.unpack, args.out)}"
    if args.video:
        folder = run.preprocess(args.video, args.out, consent=consent, settings=settings)
    else:
        source = getattr(args, "import")
        folder = run.import_folder(source, args.out, consent=consent, settings=settings)
    return f"done; look at {pathlib.Path(folder) / 'report.html'}"


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = flags()
    argv = names.joined(sys.argv[1:] if argv is None else argv, FILES)
    args = parser.parse_args(argv)
    settings = _settings(parser, args)
    unasked = args.check_only or args.pack or args.unpack
    consent = None if unasked else args.consent or _ask_consent(parser)

    def work():
        print(_work(args, consent, settings))
        return 0

    return faults.run("error", work, "finished steps are kept, the same command goes on from there")


if __name__ == "__main__":
    sys.exit(main())
