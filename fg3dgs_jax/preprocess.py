"""Any video with sound -> a processed folder (see clip/processed.py), ending with report.html.

    python -m fg3dgs_jax.preprocess --video V --out data/ID --consent self
    python -m fg3dgs_jax.preprocess --import DIR --out data/ID --consent self    # AD-NeRF's layout
    python -m fg3dgs_jax.preprocess --pack data/ID     # -> data/ID.fg3dgs, one file to travel
    python -m fg3dgs_jax.preprocess --unpack ID.fg3dgs --out data/ID

Interrupted work goes on where it stopped: a stage whose files are there for the same video and
options is not done again.
"""

import argparse
import sys

from fg3dgs_jax.clip import pack
from fg3dgs_jax.experts.audio import audio_features
from fg3dgs_jax.experts.face import emotions
from fg3dgs_jax.preprocessing import from_folder, from_video
from fg3dgs_jax.preprocessing.check import framing
from fg3dgs_jax.preprocessing.label import parsers

SOURCES = ("video", "import", "pack", "unpack")
MAX_OFFSET = 5.0  # s
CONSENTS = {
    "self": "I am the person in the video",
    "written": "the person agreed in writing",
    "licensed": "the video's licence allows it",
    "research": "research on public material, not for publication as that person's words",
}


def _ask_consent(parser):
    if not sys.stdin.isatty():
        parser.error(f"--consent is missing; say on what ground: {', '.join(CONSENTS)}")
    for name, meaning in CONSENTS.items():
        print(f"  {name}: {meaning}")
    answer = input("On what ground may this person's likeness be used? ").strip()
    if answer not in CONSENTS:
        parser.error(f"consent is {answer!r}; expected one of {', '.join(CONSENTS)}")
    return answer


def _names(parser, text):
    """The extractors of the flag --features, each once."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names or set(names) - set(audio_features.EXTRACTORS):
        parser.error(
            f"--features is {text!r}; expected some of {', '.join(audio_features.EXTRACTORS)}, "
            "comma-separated"
        )
    return names


def _check_source(parser, args):
    """Refuses anything but one thing to work on, and somewhere to put the result."""
    given = [f"--{name}" for name in SOURCES if getattr(args, name)]
    if len(given) != 1:
        wanted = " or ".join(f"--{name}" for name in SOURCES)
        parser.error(f"found {' and '.join(given) or 'no source'}; expected {wanted}, one of them")
    of_videos = {"check_only": False, "size": None, "av_offset": 0.0, "max_seconds": None}
    of_videos["parser"] = "auto"
    astray = [f"--{name}" for name, off in of_videos.items() if getattr(args, name) != off]
    if astray and not args.video:
        parser.error(f"{', '.join(astray)} goes with --video only; found {given[0]}")
    if not (args.out or args.pack or args.check_only):
        parser.error("--out is missing; say where the processed folder goes, e.g. data/ID")


def _packed(args) -> int:
    """--pack and --unpack; returns the exit code."""
    try:
        done = pack.pack(args.pack, args.out) if args.pack else pack.unpack(args.unpack, args.out)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print(f"done; look at {done}")
    return 0


def main(argv=None) -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m fg3dgs_jax.preprocess", description=__doc__.splitlines()[0]
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
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="by how much the video's sound is late (negative: early), as the video check and "
        "report.html tell; it is moved back by that (default: 0)",
    )
    parser.add_argument(
        "--consent",
        choices=CONSENTS,
        help="ground on which the person's likeness is used (default: asked on a terminal)",
    )
    parser.add_argument(
        "--features",
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
        "--max_seconds", type=float, help="use only the first so many seconds (default: all)"
    )
    parser.add_argument(
        "--expression",
        metavar="FILE.csv",
        help="OpenFace's CSV of this video: its action units instead of the blendshapes' proxies",
    )
    parser.add_argument(
        "--emotion",
        choices=(*emotions.WEIGHTS, "none"),
        help="network of the emotion channels (default: fer where its weights are, else none)",
    )
    args = parser.parse_args(argv)
    _check_source(parser, args)
    if args.pack or args.unpack:
        return _packed(args)
    features = None if args.features is None else _names(parser, args.features)
    if args.max_seconds is not None and args.max_seconds < from_video.MIN_SECONDS:
        parser.error(
            f"--max_seconds is {args.max_seconds}; expected at least {from_video.MIN_SECONDS}"
        )
    if args.size is not None and args.size != 0 and not 64 <= args.size <= 2048:
        parser.error(f"--size is {args.size}; expected 0 or 64 to 2048 px")
    if not abs(args.av_offset) <= MAX_OFFSET:
        parser.error(f"--av_offset is {args.av_offset}; expected at most {MAX_OFFSET} s either way")
    consent = None if args.check_only else args.consent or _ask_consent(parser)
    ground = (consent, CONSENTS.get(consent))
    try:
        if args.check_only:
            print(from_video.check_only(args.video, args.size, args.max_seconds, args.av_offset))
            return 0
        if theirs := getattr(args, "import"):
            report = from_folder.import_folder(
                theirs, args.out, ground, features, args.expression, args.emotion
            )
        else:
            report = from_video.process_video(
                args.video,
                args.out,
                ground,
                features,
                args.max_seconds,
                args.parser,
                args.expression,
                args.emotion,
                args.size,
                args.av_offset,
            )
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print(f"done; look at {report}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
