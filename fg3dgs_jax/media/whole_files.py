"""Files that appear whole or not at all, whatever interrupts their writing."""

import contextlib
import errno
import glob
import os
import pathlib
import socket
import zlib
from collections.abc import Iterator

# In the names of unfinished files: only a process of this host can be asked whether it still runs.
_HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"
# What a disk answers to a write.
_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


@contextlib.contextmanager
def whole(path: os.PathLike | str) -> Iterator[pathlib.Path]:
    """Yields a path to write to, which becomes `path` when the block ends without an error.

    It is a hidden file beside `path`, with its suffix, the host and the process's number in its
    name, so that two processes do not write into one. After an error it is removed and `path` is as
    before. What a process of this host left that was killed here is removed too.

        with whole(folder / "meta.json") as part:
            part.write_text(text)

    Raises:
      OSError: a write failed; it names `path`, whatever library has written.
    """
    path = pathlib.Path(path)
    part = path.with_name(f".{path.stem}.{_HOST}-{os.getpid()}.part{path.suffix}")
    try:
        remove_abandoned(path)
        yield part
        part.replace(path)
    except Exception as error:
        # FFmpeg's errors have a number too, but are no OSErrors.
        number = getattr(error, "errno", None)
        named = getattr(error, "filename", None)
        if number not in _REFUSALS or named not in (None, "", part, str(part)):
            raise
        raise OSError(number, getattr(error, "strerror", str(error)), str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def remove_abandoned(path: os.PathLike | str) -> None:
    """Removes unfinished files of `path` whose process, on this host, was killed."""
    path = pathlib.Path(path)
    prefix = f".{path.stem}.{_HOST}-"
    end = f".part{path.suffix}"
    for old in path.parent.glob(f"{glob.escape(prefix)}*{glob.escape(end)}"):
        number = old.name[len(prefix) : len(old.name) - len(end)]
        if number.isdecimal() and not _runs(int(number)):
            old.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
