"""SIGINT, SIGTERM and SIGHUP end a program tidily: nothing half-written stays, exit code 130."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

EXIT_CODE = 130
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Stopped(KeyboardInterrupt):
    """A signal has asked the program to end; its text is one line."""


class Request:
    """What a signal has asked for inside `gently`: the signal's name, or None so far."""

    name: str | None = None


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """In the block, each of `SIGNALS` raises `Stopped` where the main thread is."""

    def stop(number, _):
        raise Stopped(f"stopped by {signal.Signals(number).name}")

    with _handled_by(stop):
        yield


@contextlib.contextmanager
def gently(promise: str) -> Iterator[Request]:
    """In the block, the first signal is only noted, for the block to end where it suits.

    The second raises `Stopped`.

    Args:
      promise: what is said at the first, e.g. "stopping after this step".
    """
    request = Request()

    def note(number, _):
        name = signal.Signals(number).name
        if request.name is not None:
            raise Stopped(f"stopped by {name}")
        request.name = name
        print(f"\n{name}: {promise}; once more to stop at once", file=sys.stderr, flush=True)

    with _handled_by(note):
        yield request


@contextlib.contextmanager
def _handled_by(handler):
    """Only the main thread may set handlers. A signal that is ignored (nohup) stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {}
    try:
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
