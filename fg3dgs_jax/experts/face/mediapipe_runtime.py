"""The one place that imports mediapipe: an optional extra, loaded when first used."""

import contextlib
import os
import re
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

# What MediaPipe and TensorFlow Lite log about themselves when a task starts: information and
# warnings of absl and of TensorFlow Lite. Errors (E, F) are not among them.
_NOISE = re.compile(
    rb"(INFO: Created TensorFlow Lite|WARNING: Logging before InitGoogle|"
    rb"WARNING: All log messages before absl::InitializeLog|[IW]\d{4} .*\.(cc|cpp|h):\d+\] )"
)


class MediaPipeMissing(ValueError):
    """mediapipe is not installed or does not load; one line that says what to do."""


def load() -> tuple[types.ModuleType, types.SimpleNamespace]:
    """Returns (mediapipe, tasks): tasks holds `BaseOptions` and `vision`.

    Raises:
      MediaPipeMissing: it is not installed, or a shared library of the system is absent.
    """
    try:
        # An optional dependency, and one that takes a second to start.
        import mediapipe
        from mediapipe.tasks import python as tasks
        from mediapipe.tasks.python import vision
    except (ImportError, OSError) as error:  # OSError: a shared library of the system is absent
        raise MediaPipeMissing(
            f"mediapipe cannot be imported ({error}); preprocessing a video needs it: "
            "pip install -e '.[preprocess]'"
        ) from None
    return mediapipe, types.SimpleNamespace(BaseOptions=tasks.BaseOptions, vision=vision)


def create(task: Any, options: Any) -> Any:
    """Returns `task.create_from_options(options)` without what it logs about its start.

    Args:
      task: a class of `vision`, e.g. `FaceLandmarker`.
      options: its options.
    """
    with start_up_noise_dropped():
        return task.create_from_options(options)


@contextlib.contextmanager
def start_up_noise_dropped() -> Iterator[None]:
    """Passes on the lines that are written to standard error, but for MediaPipe's start-up noise.

    The lines come from C++, so that the file descriptor itself is replaced for the time. No
    environment variable or flag of MediaPipe 1.2 turns them off.
    """
    _flush()
    try:
        original = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    reader, writer = os.pipe()
    os.dup2(writer, 2)
    os.close(writer)
    relay = threading.Thread(target=_relay, args=(reader, original), daemon=True)
    relay.start()
    try:
        yield
    finally:
        _flush()
        os.dup2(original, 2)  # closes the pipe's last writing end, which ends the relay
        relay.join()
        os.close(original)


def _flush() -> None:
    if sys.stderr is not None:
        sys.stderr.flush()


def _relay(reader: int, target: int) -> None:
    """Copies lines from one file descriptor to another until the first ends, noise left out."""
    with open(reader, "rb", buffering=0) as source:
        rest = b""
        while data := source.read(4096):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if not _NOISE.match(line):
                    os.write(target, line + b"\n")
        if rest and not _NOISE.match(rest):
            os.write(target, rest)
