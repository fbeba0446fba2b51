"""One file from a web address, resumed where an earlier attempt was cut off."""

import http.client
import os
import pathlib
import time
import urllib.error
import urllib.request

from fg3dgs_jax.media.progress import progress
from fg3dgs_jax.weights.registry import WeightsMissing

_CHUNK = 1 << 20  # bytes
_TIMEOUT = 60  # s without an answer
_PAUSE = 1.0  # s before a cut connection is taken up again


class Cut(ConnectionError):
    """The connection ended before the file did; what came is kept."""


def download(url: str, part: os.PathLike | str, size: int = 0, resume: bool = True) -> bool:
    """Writes what `url` answers to the file `part`, going on at its end if it is there.

    A server that cuts the connection is asked again for the rest, as long as more comes each time.
    One that does not know ranges is asked for everything.

    Args:
      url: of the file.
      part: where to write.
      size: bytes expected, 0 if unknown: more, or the announcement of another size, is refused.
      resume: whether `part` may hold the beginning.

    Returns:
      whether there was a beginning from an earlier call.

    Raises:
      WeightsMissing: what comes has another size; `part` is gone.
      OSError: no answer, or cut off; `part` holds what came.
    """
    part = pathlib.Path(part)
    if not resume:
        part.unlink(missing_ok=True)
    resumed, before = _length(part) > 0, -1
    while True:
        start = _length(part)
        if size and start > size:
            part.unlink()
            start = 0
        if start and start == size:
            return resumed
        try:
            _continue(url, part, start, size)
            return resumed
        except WeightsMissing:
            part.unlink(missing_ok=True)
            raise
        except (ConnectionError, http.client.HTTPException, TimeoutError) as error:
            came = _length(part)
            if came <= max(start, before):  # nothing more came: it is no use
                raise Cut(str(error) or type(error).__name__) from None
            before = came
            time.sleep(_PAUSE)


def _length(path) -> int:
    return path.stat().st_size if path.exists() else 0


def _continue(url, part, start, size) -> None:
    """Asks for the bytes from `start` and appends them, or begins again if all of them come."""
    request = urllib.request.Request(url, headers={"User-Agent": "fg3dgs_jax"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
            raise
        part.unlink()  # the server's file ends before ours: ours cannot be its beginning
        _continue(url, part, 0, size)
        return
    with answer:
        given = answer.headers.get("Content-Range", "") if answer.status == 206 else ""
        obliged = bool(start) and given.startswith(f"bytes {start}-")
        if given and not obliged:
            part.unlink(missing_ok=True)
            raise ConnectionError(f"the server sent {given!r}, asked was {start}-")
        kept = start if obliged else 0
        announced = answer.headers.get("Content-Length")
        total = size or None if announced is None else kept + int(announced)
        if size and total != size:
            raise WeightsMissing(f"the server has {total} bytes, registered are {size}; refused")
        with open(part, "ab" if obliged else "wb") as out:
            written = _copy(answer, out, kept, size, total)
    if total is not None and written < total:
        raise Cut(f"the connection ended after {written} of {total} bytes")


def _copy(source, out, start, size, total) -> int:
    """Appends all of `source`; the bytes then written."""
    written = start
    with progress(desc="download", total=total, initial=start, unit="B") as bar:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if size and written > size:
                raise WeightsMissing(f"what came is longer than the {size} bytes registered")
            out.write(chunk)
            bar.update(len(chunk))
    return written
