"""Files that appear whole or not at all, whatever interrupts their writing."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def whole(path: os.PathLike | str) -> Iterator[pathlib.Path]:
    """Yields a path to write to, which becomes `path` when the block ends without an error.

    It is a hidden file beside `path`, with its suffix and the process's number in its name, so that
    two processes do not write into one. After an error it is removed and `path` is as before.

        with whole(folder / "meta.json") as part:
            part.write_text(text)
    """
    path = pathlib.Path(path)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
