"""Rows of the table of verdicts, and the table as text."""

from collections.abc import Sequence
from typing import NamedTuple

# With these bad, preprocessing refuses the video, or there is nothing to learn from.
STOPS = ("face in view", "second faces", "sound")


class Row(NamedTuple):
    """One line of the table."""

    name: str
    found: str
    verdict: str  # "good", "usable", "bad", or "unknown": it could not be judged
    advice: str  # empty where good


def graded(name: str, found: str, value: float, limits: tuple[float, float], advice: str) -> Row:
    """A row by a value of which more is better; pass value and limits negated where less is.

    Args:
      name: of the row.
      found: the value in words.
      value: what was measured.
      limits: from the first on it is good, from the second on usable.
      advice: what to do where it is not good.
    """
    good, usable = limits
    verdict = "good" if value >= good else "usable" if value >= usable else "bad"
    return Row(name, found, verdict, "" if verdict == "good" else advice)


def table(rows: Sequence[Row]) -> str:
    """The rows as text for a terminal; the last line says whether to go on."""
    widths = [max(len(r[k]) for r in rows) for k in range(3)]
    lines = []
    for row in rows:
        cells = "  ".join(cell.ljust(w) for cell, w in zip(row[:3], widths, strict=True))
        lines.append(f"{cells}  {row.advice}".rstrip())
    return "\n".join([*lines, f"=> {conclusion(rows)}"])


def conclusion(rows: Sequence[Row]) -> str:
    """Whether to go on, in one line that names the rows which decide it."""
    names = {
        verdict: [row.name for row in rows if row.verdict == verdict]
        for verdict in ("bad", "usable", "unknown")
    }
    if stops := [name for name in names["bad"] if name in STOPS]:
        return f"do not go on: {_listed(stops)} will not do; follow the advice first"
    if names["bad"]:
        return (
            f"think before you go on: {_listed(names['bad'])} will show in the avatar; follow the "
            "advice first, if you can"
        )
    if names["usable"] or names["unknown"]:
        parts = [("could be better", names["usable"]), ("not known", names["unknown"])]
        why = "; ".join(f"{words}: {_listed(listed)}" for words, listed in parts if listed)
        return f"go on: the video will do ({why})"
    return "go on: a good video"


def _listed(names):
    return ", ".join(names)
