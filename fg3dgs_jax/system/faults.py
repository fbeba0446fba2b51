"""What stops a program, in one line: what was found, what was expected, what to do."""

import errno
import os
import pathlib
import re
import sys
from collections.abc import Callable

from fg3dgs_jax.system import stop

FULL = (errno.ENOSPC, errno.EDQUOT)
# NumPy's own message of a write that was cut short, which comes without a number.
_CUT_SHORT = re.compile(r"\d+ requested and \d+ written")
# A hidden name that a file has until it is whole.
_PART = re.compile(r"^\.(?P<stem>.+?)(\.[0-9a-f]{8}-\d+)?\.(part|filling)(?P<suffix>\..+)?$")
_ANYWHERE = "free some room and run the same command again"


def run(name: str, work: Callable[[], int], kept: str = "nothing half-made is left") -> int:
    """Does a program's work; returns its exit code.

    Bad input, a failed write, a signal and a lack of memory are one line on standard error each.
    Anything else is a fault of the program and keeps its traceback.

    Args:
      name: what the line begins with.
      work: returns the exit code.
      kept: what is said after a signal that `work` has nothing to say about.

    Returns:
      That of `work`, 1 after an error, 130 after a signal.
    """
    try:
        with stop.at_once():
            return work()
    except KeyboardInterrupt as error:
        line = str(error) or "stopped by SIGINT"
        return _tell(name, line if ";" in line else f"{line}; {kept}", stop.EXIT_CODE)
    except Exception as error:
        line = describe(error)
        if line is None:
            raise
        return _tell(name, line, 1)


def describe(error: BaseException) -> str | None:
    """One line about an error that a user can do something about; None for other errors."""
    if (line := of_system(error)) is not None:
        return line
    if isinstance(error, MemoryError) or is_out_of_memory(error):
        reason = _one_line(str(error)).removeprefix("RESOURCE_EXHAUSTED: ")
        return (
            f"there is not enough memory ({reason or 'an array did not fit'}); end other programs, "
            "use smaller pictures (train: --config.data.max_side=256) or a machine with more"
        )
    if isinstance(error, (ValueError, OSError, FloatingPointError)):
        return _one_line(str(error))
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether XLA had no memory for an array or a program."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool({"XlaRuntimeError", "JaxRuntimeError"} & names) and (
        "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower()
    )


def is_full(error: BaseException) -> bool:
    """Whether a write failed because the disk, or what the user may have of it, is full."""
    number = getattr(error, "errno", None)
    if isinstance(error, OSError) and number is None:
        return bool(_CUT_SHORT.search(str(error)))
    return number in FULL or (number is None and "No space left on device" in str(error))


def of_system(error: BaseException) -> str | None:
    """One line about what the system refused, with what to do; None where it is nothing of this.

    Errors that come with a message of their own, and no number, keep it.
    """
    path = shown_path(getattr(error, "filename", None))
    what, where = (path, path.parent) if path else ("a file", "its folder")
    number = getattr(error, "errno", None)
    if is_full(error):
        return f"the disk is full: there was no room to write {what}; {_ANYWHERE}"
    if number == errno.EFBIG:
        return (
            f"{what} would be larger than the system allows; expected no limit on the size of "
            "files (ulimit -f unlimited)"
        )
    if number == errno.EROFS:
        return f"{what} is on a read-only file system; expected a folder that can be written"
    if number in (errno.EACCES, errno.EPERM) and path:
        return (
            f"there is no permission for {what}; expected that this user may read and write it: "
            f"change the mode or owner of it or of {where}, or choose another path"
        )
    if number in (errno.EEXIST, errno.ENOTDIR) and path:
        file = next((p for p in (path, *path.parents) if p.is_file()), path)
        return f"{file} is a file; expected a folder: choose another path, or move the file away"
    if number == errno.EISDIR and path:
        return f"{what} is a folder; expected a file: choose another path"
    return None


def shown_path(name: os.PathLike[str] | str | bytes | int | None) -> pathlib.Path | None:
    """The path that a user knows of a file that failed, which may still have its hidden name."""
    if name is None or isinstance(name, int):
        return None
    path = pathlib.Path(os.fsdecode(name))
    part = _PART.match(path.name)
    return path.with_name(part["stem"] + (part["suffix"] or "")) if part else path


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _tell(name: str, line: str, code: int) -> int:
    print(f"{name}: {line}", file=sys.stderr)
    return code
