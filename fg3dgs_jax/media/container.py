"""Media files through PyAV: opening one, its streams, and what is wrong with it in one line."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from fg3dgs_jax.media import av

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


class VideoError(ValueError):
    """A video that cannot be used; one line that says what was found and what was expected."""


class AudioError(ValueError):
    """A sound file that cannot be used; one line that says what was found and what was expected."""


class StreamInfo(NamedTuple):
    """One stream of a media file."""

    type: str  # "video" or "audio"
    codec: str
    rate: float  # frames or samples a second
    seconds: float | None  # where the container says


def probe_streams(path: os.PathLike | str) -> list[StreamInfo]:
    """What is inside a media file, in the file's order."""
    with open_media(path, VideoError) as container:
        return [
            StreamInfo(
                s.type,
                s.codec_context.name if s.codec_context else "unknown",
                float((s.average_rate if isinstance(s, av.VideoStream) else s.rate) or 0),
                float(s.duration * tick(s)) if s.duration is not None else None,
            )
            for s in container.streams
            if isinstance(s, (av.VideoStream, av.AudioStream))
        ]


@contextlib.contextmanager
def open_media(path: os.PathLike | str, error: type[ValueError]) -> Iterator[av.InputContainer]:
    """The open container; whatever is wrong with the file becomes one line of class `error`."""
    expected = "a video file" if error is VideoError else "an audio file"
    text, path = str(path), pathlib.Path(path)
    if not path.is_file():
        if _ADDRESS.match(text):
            text = re.sub(r":/+", "://", text, count=1)  # a Path has lost the second slash
            raise error(
                f"{text} is an address; expected {expected} on this machine: download it first"
            )
        raise error(
            f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; expected {expected}"
        )
    try:
        container = av.open(local(path))
    except (av.FFmpegError, UnicodeError) as cause:
        raise error(
            f"{path} cannot be read as media ({type(cause).__name__}); "
            f"expected {expected} (mp4, mov, wav, ...)"
        ) from None
    try:
        with container:
            yield container
    except av.FFmpegError as cause:
        raise error(f"{path} is damaged ({cause.strerror}); expected {expected}") from None


def local(path: os.PathLike | str) -> str:
    """A path as FFmpeg takes it: without this, what comes before a colon is a protocol."""
    return f"file:{path}"


def tick(stream: av.VideoStream | av.AudioStream) -> Fraction:
    """Seconds from one time stamp to the next."""
    assert stream.time_base is not None  # every stream of a file has one
    return stream.time_base
