"""How much memory there is, and whether a program's estimate fits into it."""

import os
import pathlib

_CGROUPS = pathlib.Path("/sys/fs/cgroup")
# Files of a limit and of what is taken of it: version 2 of control groups, then version 1.
_LIMITS = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))


def available() -> int:
    """Bytes that this process may still take without swapping, where the system says so.

    The least of what the machine has free and what the process's control groups (containers, batch
    systems) leave it.
    """
    return min([_of_machine(), *_of_groups()])


def _of_machine() -> int:
    try:
        with open("/proc/meminfo") as file:
            sizes = dict(line.split(":") for line in file)
        return int(sizes["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_groups() -> list[int]:
    """What each control group on the way from this process to the root leaves, in bytes."""
    try:
        lines = pathlib.Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    left = []
    for line in lines:
        number, kinds, name = line.split(":", 2)
        if number == "0":
            root, files = _CGROUPS, _LIMITS[0]
        elif "memory" in kinds.split(","):
            root, files = _CGROUPS / "memory", _LIMITS[1]
        else:
            continue
        folder = root / name.lstrip("/")
        for place in (folder, *folder.parents):
            if not place.is_relative_to(root):
                break
            left += _left_in(place, *files)
    return left


def _left_in(folder: pathlib.Path, limit: str, usage: str) -> list[int]:
    try:
        most = (folder / limit).read_text().strip()
        taken = int((folder / usage).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return []
    if not most.isdecimal():  # "max": there is no limit
        return []
    # Files that were read count as taken, but are given back when there is need.
    cache = int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))
    return [max(int(most) - taken + cache, 0)]


def foresee(needed: float, remedy: str) -> str:
    """One line: how much memory a program will take at most, against what there is.

    Args:
      needed: bytes, estimated.
      remedy: what takes less, for the case that it does not fit.
    """
    left = available()
    line = f"memory: about {needed / 1e9:.1f} GB at the peak, {left / 1e9:.1f} GB are available"
    if needed <= left:
        return line
    return (
        f"{line}: this is not expected to fit, and the system may end the program; end other "
        f"programs first, or {remedy}"
    )
