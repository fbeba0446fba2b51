"""`python -m fg3dgs_jax.experts list` or `fetch NAME ...`: pretrained weights, here or to get."""

import argparse
import sys

from fg3dgs_jax.experts import weights


def main(argv=None) -> int:
    """Returns the exit code: 0 only if everything asked for is there and verified."""
    parser = argparse.ArgumentParser(prog="python -m fg3dgs_jax.experts", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every known file: size, licence, where it was found")
    fetch = commands.add_parser("fetch", help="download into the user's cache, verified by sha256")
    fetch.add_argument("names", nargs="+", choices=[*weights.REGISTRY, "all"], metavar="NAME")
    args = parser.parse_args(argv)
    if args.command == "list":
        return max(map(_show, weights.REGISTRY.values()))
    known = [file.name for file in weights.REGISTRY.values() if file.can_be_fetched]
    return max(map(_fetch, known if "all" in args.names else args.names))


def _show(file) -> int:
    try:
        state, code = weights.find(file.name) or "not found", 0
    except weights.WeightsMissing as error:
        state, code = f"refused: {error}", 1
    print(f"{file.name:17} {file.size / 1e6:5.1f} MB  {file.licence:10}  {file.what}: {state}")
    return code


def _fetch(name) -> int:
    try:
        print(weights.fetch(name))
    except weights.WeightsMissing as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
