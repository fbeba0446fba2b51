"""Keeps what JAX compiles in the user's cache, so that a second start does not compile again.

JAX does the keeping: `$JAX_COMPILATION_CACHE_DIR` names another folder, and
`JAX_ENABLE_COMPILATION_CACHE=false` turns it off. Here are the folder, its bounds and its health.
"""

import hashlib
import os
import pathlib
import platform
import re
import shutil
import zlib
from typing import Any

import platformdirs

LIMIT, MOST = 1 << 30, 10_000  # bytes and files of all programs: the oldest give way
ROOM = 1 << 28  # bytes that must be free
_CHECKED = ".checked"  # its time is that of the last look at a folder
_PROCESSOR = re.compile(r"^(vendor_id|cpu family|model|flags|Features)\s*:.*$", re.MULTILINE)


def keep() -> pathlib.Path | None:
    """Has JAX keep its programs, before anything is compiled; on a GPU also what it tuned.

    Returns:
      The folder, or None where the user chose another or none, where it cannot be written, and
      where the disk is nearly full.
    """
    import jax  # here, because --help and a finished run do not need it

    settings: Any = jax.config  # has an attribute for each
    if settings.jax_compilation_cache_dir or not settings.jax_enable_compilation_cache:
        return None
    programs = platformdirs.user_cache_path("fg3dgs", appauthor=False) / "programs"
    folder = programs / machine()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK) or shutil.disk_usage(folder).free < ROOM:
            return None
        _drop_damaged(folder)
        _drop_oldest(programs)
    except OSError:
        return None
    settings.update("jax_compilation_cache_dir", str(folder))
    # All of them: a start runs hundreds of small ones, which together take seconds to compile.
    settings.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return folder


def machine() -> str:
    """A name for all machines on which a compiled program may run, and runs as fast.

    XLA compiles for the very processor, whose instructions another may lack, and for its cores.
    """
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    first = sorted({m[0] for m in _PROCESSOR.finditer(text.split("\n\n")[0])})
    facts = [platform.processor(), os.cpu_count(), os.environ.get("NPROC"), *first]
    return f"{platform.machine()}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:8]}"


def _drop_damaged(folder):
    """Removes what a killed process left half written; only new files are looked at."""
    stamp = folder / _CHECKED
    since = stamp.stat().st_mtime if stamp.exists() else 0.0
    stamp.touch()
    for path in folder.glob("*-cache"):
        if path.stat().st_mtime >= since and not _is_whole(path.read_bytes()):
            path.unlink(missing_ok=True)


def _is_whole(data):
    """Whether zlib can unpack it; where JAX finds zstandard it writes that, which is not read."""
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        return True
    try:
        return bool(zlib.decompress(data))
    except zlib.error:
        return False


def _drop_oldest(programs):
    """Keeps within LIMIT and MOST; a file's age counts from when it was written or last read."""
    found = [(path, path.stat()) for path in programs.rglob("*") if path.is_file()]
    found.sort(key=lambda entry: max(entry[1].st_atime, entry[1].st_mtime), reverse=True)
    size = 0
    for number, (path, stat) in enumerate(found):
        size += stat.st_size
        if size > LIMIT or number >= MOST:
            path.unlink(missing_ok=True)
