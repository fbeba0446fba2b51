"""Where a user's cache lies: weights that were downloaded, packed folders that were unpacked."""

import os
import pathlib
import sys


def cache_folder() -> pathlib.Path:
    """~/.cache/fg3dgs ($XDG_CACHE_HOME), ~/Library/Caches/fg3dgs or %LOCALAPPDATA%/fg3dgs."""
    if sys.platform == "darwin":
        base = pathlib.Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = pathlib.Path(
            os.environ.get("LOCALAPPDATA") or pathlib.Path.home() / "AppData" / "Local"
        )
    else:
        base = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    return base / "fg3dgs"
