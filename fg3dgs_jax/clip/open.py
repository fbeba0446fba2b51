"""Opens what a user names: a processed folder, or the one file that it was packed into."""

import os
import pathlib
import shutil
import sys

from fg3dgs_jax.clip import format, pack, processed
from fg3dgs_jax.system import arrays


def open_clip(path: os.PathLike | str, max_side: int = 0) -> processed.Clip:
    """The clip of a processed folder, or of a packed one, which is unpacked into the user's cache.

    What is damaged in the cache is unpacked again.

    Args:
      path: the folder or the file.
      max_side: px; larger pictures are shrunk (0: they stay as they are), see
        `processed.load_clip`.

    Raises:
      DatasetError: a folder that cannot be used, see `processed.load_clip`.
      ValueError: a packed file, or a file of the folder, that is damaged.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        return processed.load_clip(path, max_side)
    folder = pack.opened(path)
    try:
        return processed.load_clip(folder, max_side)
    except (arrays.Damaged, format.DatasetError) as error:
        print(f"in the cache: {error}; unpacking {path} again", file=sys.stderr)
        shutil.rmtree(folder)
        return processed.load_clip(pack.opened(path), max_side)
