"""Opens what a user names: a processed folder, or the one file that it was packed into."""

import os
import pathlib

from fg3dgs_jax.clip import pack, processed


def open_clip(path: os.PathLike | str, max_side: int = 0) -> processed.Clip:
    """The clip of a processed folder, or of a packed one, which is unpacked into the user's cache.

    Args:
      path: the folder or the file.
      max_side: px; larger pictures are shrunk (0: they stay as they are), see
        `processed.load_clip`.

    Raises:
      DatasetError: a folder that cannot be used, see `processed.load_clip`.
      ValueError: a packed file that is damaged.
    """
    path = pathlib.Path(path)
    return processed.load_clip(pack.opened(path) if path.is_file() else path, max_side)
