"""Progress bars that are also readable in a log file."""

import sys
import time
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

# Seconds between two lines where there is no terminal.
LINE_INTERVAL = 10.0


class _Lines(tqdm):
    """A bar as plain lines: one every `LINE_INTERVAL` seconds and one at the end."""

    _next_line: float | None = None

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Writes a line if one is due, or if the bar is being closed."""
        # tqdm sets `disable` before the display of a close, and ends that line itself.
        if self.disable:
            self.fp.write(msg or str(self))
            return
        now = time.monotonic()
        if self._next_line is None:
            self._next_line = now + LINE_INTERVAL
        elif now >= self._next_line:
            self._next_line = now + LINE_INTERVAL
            self.fp.write(f"{msg or self}\n")
            self.fp.flush()


def progress(
    items: Iterable | None = None,
    *,
    desc: str,
    total: int | None = None,
    unit: str = "it",
    initial: int = 0,
    enabled: bool = True,
) -> tqdm:
    """Returns a progress bar on standard error.

    A terminal gets tqdm's usual bar. A log file gets no carriage returns, but a plain line every
    few seconds and one at the end.

    Args:
      items: what to iterate over; None where the caller counts with `.update(n)`.
      desc: what is being done, in one or two words.
      total: number of items; by default the length of `items`, where it has one.
      unit: what is counted. With "B" the counts are scaled: 1.2MB.
      initial: items that were done before, for work that resumes.
      enabled: False shows nothing and still iterates and counts.

    Returns:
      An iterator over `items` and a context manager, with `.update(n)`, `.set_postfix(...)` and
      `.set_description(...)`.
    """
    options: dict[str, Any] = {
        "desc": desc,
        "total": total,
        "unit": unit,
        "initial": initial,
        "disable": not enabled,
        "unit_scale": unit == "B",
    }
    if sys.stderr.isatty():
        return tqdm(items, **options)
    return _Lines(items, mininterval=LINE_INTERVAL, ncols=0, **options)
