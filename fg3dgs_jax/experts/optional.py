"""A network, or why it is not here: what metrics and losses that can do without one are given."""

from collections.abc import Callable
from typing import NamedTuple


class OptionalNetwork(NamedTuple):
    """A network ready to be called, or None with the reason."""

    call: Callable | None
    source: str  # where it comes from, or why it is missing: shown to users and stored with results
    close: Callable[[], None] = lambda: None  # to be called before the program ends
