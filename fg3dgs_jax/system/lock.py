"""One writer a folder: a lock that names its process and host, and that a crash does not keep.

The lock is an `flock` on the file `.lock` in the folder, which the system releases however a
process ends. Where the file system knows no `flock`, the file alone is the lock. It then counts
until its process has ended, which is only known on the same host.
"""

import contextlib
import errno
import json
import os
import pathlib
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

try:
    import fcntl
except ImportError:  # not a POSIX system: the file alone is the lock
    fcntl = None

NAME = ".lock"
# What a file system answers that has no `flock`.
_NO_FLOCK = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)


class Locked(ValueError):
    """A folder that another process writes; one line with the process, its host and what to do."""


@contextlib.contextmanager
def held(folder: os.PathLike[str] | str, program: str) -> Iterator[None]:
    """Holds the lock of a folder during the block; the folder is made where it is missing.

    The lock of a process that has ended is taken over, with one line on standard error.

    Args:
      folder: that the block writes.
      program: what the others are told, e.g. "train".

    Raises:
      Locked: another process holds it.
      OSError: nothing can be written into the folder.
    """
    folder = pathlib.Path(folder)
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    handle = _acquire(path)
    try:
        record = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "program": program,
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(record).encode(), 0)
        yield
    finally:
        # Before the handle is closed: who waits for this very file sees that it has gone.
        path.unlink(missing_ok=True)
        os.close(handle)
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()  # it fails where the block has left anything


def _acquire(path: pathlib.Path) -> int:
    """Opens the lock's file; returns its handle once the lock is this process's."""
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            try:
                handle = os.open(path, os.O_RDWR)
            except FileNotFoundError:
                continue
            is_new = False
        else:
            is_new = True
        try:
            if _is_taken(handle, path, is_new):
                os.close(handle)
                continue
        except BaseException:
            os.close(handle)
            raise
        return handle


def _is_taken(handle: int, path: pathlib.Path, is_new: bool) -> bool:
    """Whether to try again, because the file has gone meanwhile; False: the lock is ours.

    Raises:
      Locked: another process has it.
    """
    record = {} if is_new else _read(handle)
    if _flock(handle, path):
        if not _is_same(handle, path):
            return True
        record = record and _read(handle)
    elif not is_new:
        if not _has_ended(record):
            raise Locked(f"{_in_use(path.parent, record)}; if it has ended, delete {path}")
    if record:
        print(
            f"{path.parent}: the lock of {_who(record)} was left behind; taken over",
            file=sys.stderr,
        )
    return False


def _flock(handle: int, path: pathlib.Path) -> bool:
    """Whether the file system has `flock`, and the lock is then ours.

    Raises:
      Locked: another process has it.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Locked(f"{_in_use(path.parent, _read(handle))}; wait for it or end it") from None
    except OSError as error:
        if error.errno in _NO_FLOCK:
            return False
        raise
    return True


def _is_same(handle: int, path: pathlib.Path) -> bool:
    """Whether the path still names the file that is open."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _read(handle: int) -> dict[str, Any]:
    """What the file records; {} where it is not whole."""
    try:
        record = json.loads(os.pread(handle, 4096, 0))
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _has_ended(record: dict[str, Any]) -> bool:
    """Whether the process of a record is known to have ended."""
    if record.get("host") != socket.gethostname() or os.name != "posix":
        return False
    try:
        os.kill(int(record["pid"]), 0)
    except ProcessLookupError:
        return True
    except (KeyError, TypeError, ValueError, OSError):
        return False
    return False


def _who(record: dict[str, Any]) -> str:
    if not record:
        return "another process"
    name, pid, host = (record.get(key, "?") for key in ("program", "pid", "host"))
    return f"{name} (process {pid} on {host}, since {record.get('since', '?')})"


def _in_use(folder: pathlib.Path, record: dict[str, Any]) -> str:
    return f"{folder} is being written by {_who(record)}; expected one process at a time"
