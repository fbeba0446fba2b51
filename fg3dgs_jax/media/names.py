"""Names of files on a command line."""

from collections.abc import Iterable, Sequence


def joined(arguments: Sequence[str], flags: Iterable[str]) -> list[str]:
    """The arguments, with names of files that begin with a dash put behind their flag.

    argparse takes `--video -x.mp4` for two flags, and `--video=-x.mp4` for what it is.

    Args:
      arguments: of a command line.
      flags: those that are followed by the name of a file or folder, e.g. `--video`.
    """
    names, out = set(flags), []
    for argument in arguments:
        dashed = argument.startswith("-") and not argument.startswith("--") and argument != "-"
        if dashed and out and out[-1] in names:
            out[-1] = f"{out[-1]}={argument}"
        else:
            out.append(argument)
    return out
