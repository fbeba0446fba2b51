"""Pretrained weights: which are here, getting them, converting them, trying them out.

python -m fg3dgs_jax.weights list
python -m fg3dgs_jax.weights fetch NAME ... [--accept_licence] [--url URL]
python -m fg3dgs_jax.weights convert FILE [--name NAME] [--out DIR]
python -m fg3dgs_jax.weights check [NAME ...]
"""

import argparse
import pathlib
import sys

from fg3dgs_jax.experts import check as check_lib
from fg3dgs_jax.experts import convert
from fg3dgs_jax.system import faults
from fg3dgs_jax.weights import store


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0 only if everything asked for is there and right."""
    parser = argparse.ArgumentParser(
        prog="python -m fg3dgs_jax.weights",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for add in COMMANDS:
        add(commands)
    args = parser.parse_args(argv)
    return faults.run("error", lambda: args.run(args))


def _add_list(commands):
    command = commands.add_parser("list", help="every known file: size, licence, what needs it")
    command.set_defaults(run=_list)


def _list(args) -> int:
    del args
    print(f"searched: {', '.join(map(str, store.search_folders()))}")
    rows, refusals = [("NAME", "MB", "", "LICENCE", "NEEDED FOR")], []
    for row in store.REGISTRY.values():
        try:
            path = store.find(row.name)
            state = "absent" if path is None else _kind(row, path)
        except store.WeightsMissing as error:
            state = "REFUSED"
            refusals.append(str(error))
        size = f"{'' if row.size else '~'}{row.megabytes:.1f}"
        rows.append((row.name, size, state, row.licence, row.needed_by))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for name, size, state, licence, needed_by in rows:
        cells = (name.ljust(widths[0]), size.rjust(widths[1]), state.ljust(widths[2]))
        print(*cells, licence.ljust(widths[3]), needed_by, sep="  ")
    for refusal in refusals:
        print(f"error: {refusal}", file=sys.stderr)
    return int(bool(refusals))


def _kind(row, path):
    return "here" if path.name == pathlib.PurePath(row.filename).name else "converted"


def _add_fetch(commands):
    command = commands.add_parser("fetch", help="download into the user's cache, verified")
    command.add_argument("names", nargs="+", choices=[*store.REGISTRY, "all"], metavar="NAME")
    command.add_argument("--url", help="your own address of the file, instead of the known ones")
    command.add_argument(
        "--accept_licence",
        action="store_true",
        help="you accept the licence shown, which may allow non-commercial use only",
    )
    command.set_defaults(run=_fetch)


def _fetch(args) -> int:
    known = [row.name for row in store.REGISTRY.values() if row.can_be_fetched]
    names = known if "all" in args.names else args.names
    if args.url and len(names) != 1:
        return _fail(f"--url goes with one name; got {len(names)}")

    def fetch(name):
        print(store.fetch(name, url=args.url, accept_licence=args.accept_licence))

    return max(_try(fetch, name) for name in names)


def _add_convert(commands):
    command = commands.add_parser(
        "convert", help="published file -> npz of Flax arrays that replaces it, with its sidecar"
    )
    command.add_argument("source", metavar="FILE", help="the published file")
    command.add_argument(
        "--name", choices=store.REGISTRY, metavar="NAME", help="whose file it is, if not obvious"
    )
    command.add_argument("--out", metavar="DIR", help="where to write; default: the user's cache")
    command.set_defaults(run=_convert)


def _convert(args) -> int:
    return _try(lambda source: print(convert.convert(source, args.name, args.out)), args.source)


def _add_check(commands):
    command = commands.add_parser(
        "check", help="verify the files found, load each and run its network once"
    )
    command.add_argument("names", nargs="*", metavar="NAME", help="default: all that are found")
    command.set_defaults(run=_check)


def _check(args) -> int:
    def check(name):
        _check_one(name, store.require(name))

    if args.names:
        return max(_try(check, name) for name in args.names)
    codes = [0]
    for name in store.REGISTRY:
        try:
            path = store.find(name)
        except store.WeightsMissing as error:
            codes.append(_fail(f"{name}: {error}"))
            continue
        if path is not None:
            codes.append(_try(lambda name, path=path: _check_one(name, path), name))
    if len(codes) == 1:
        print("no weights were found; see: python -m fg3dgs_jax.weights list")
    return max(codes)


def _check_one(name, path):
    row = store.lookup(name)
    verified = "verified" if row.has_digest else "no digest registered"
    if row.name not in check_lib.NETWORKS:
        print(f"{row.name:18}  {verified}, not run here  ({path})")
        return
    try:
        result = check_lib.check(row.name, path)
    except ImportError as error:
        result = f"not run: {error}"
    print(f"{row.name:18}  {verified}; {result}  ({path})")


def _try(do, name) -> int:
    try:
        do(name)
    except (OSError, ValueError) as error:
        return _fail(faults.describe(error))
    return 0


def _fail(message) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1


# Each adds its subparser, with the default `run`: parsed flags -> exit code.
COMMANDS = (_add_list, _add_fetch, _add_convert, _add_check)

if __name__ == "__main__":
    sys.exit(main())
