"""Alias of `weights`, and `train_sync` of `lipsync fit --only expert`."""

import sys


def main(argv: list[str] | None = None) -> int:
    """Runs the program that goes by another name now; returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    # Imported here, for the expert's trainer takes a second to load.
    if argv[:1] == ["train_sync"]:
        from fg3dgs_jax.lipsync import __main__ as lipsync

        return lipsync.main(["fit", "--only", "expert", *argv[1:]])
    from fg3dgs_jax.weights import __main__ as weights

    return weights.main(argv)


if __name__ == "__main__":
    sys.exit(main())
