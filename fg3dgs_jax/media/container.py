"""What a media file holds, through PyAV: pictures and pieces of sound, each with its time.

Times are seconds on the file's own clock, which need not start at zero.
"""

import contextlib
import os
import pathlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.stream import Disposition

from fg3dgs_jax.media.clock import SAMPLE_RATE

_GAP = 0.06  # s; sound time stamps off by more than this are a hole or a jump, not jitter


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
                float(s.duration * _tick(s)) if s.duration is not None else None,
            )
            for s in container.streams
            if isinstance(s, (av.VideoStream, av.AudioStream))
        ]


@contextlib.contextmanager
def open_media(path: os.PathLike | str, error: type[ValueError]) -> Iterator[InputContainer]:
    """The open container; whatever is wrong with the file becomes one line of class `error`."""
    path = pathlib.Path(path)
    expected = "a video file" if error is VideoError else "an audio file"
    if not path.is_file():
        raise error(
            f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; expected {expected}"
        )
    try:
        container = av.open(str(path))
    except (FFmpegError, UnicodeError) as cause:
        raise error(
            f"{path} cannot be read as media ({type(cause).__name__}); "
            f"expected {expected} (mp4, mov, wav, ...)"
        ) from None
    try:
        with container:
            yield container
    except FFmpegError as cause:
        raise error(f"{path} is damaged ({cause.strerror}); expected {expected}") from None


def picture_stream(container: InputContainer, path: os.PathLike | str) -> av.VideoStream:
    """The first video stream that is not the cover picture of a song."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise VideoError(f"{path} has no video stream; expected a video with sound")
    return streams[0]


def decode_pictures(container: InputContainer, fps: float) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yields (time in s on the file's clock, frame) as shown; skips what cannot be decoded."""
    stream = picture_stream(container, container.name)
    stream.thread_type = "AUTO"
    time = -1.0 / fps
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except InvalidDataError:
            continue  # a damaged picture: the one before it stays on screen
        for frame in frames:
            time = frame.time if frame.time is not None else time + 1.0 / fps
            yield time, frame


def seek_pictures(container: InputContainer, time: float | None) -> None:
    """Goes to the last key picture not after `time` (s on the file's clock); None: the start."""
    stream = picture_stream(container, container.name)
    if time is None:
        at = stream.start_time or 0
    else:
        at = int(time / _tick(stream))
    with contextlib.suppress(FFmpegError):  # a file that cannot seek is read from where it is
        container.seek(at, stream=stream, backward=True)


def picture_end(path: os.PathLike | str, fps: float) -> float:
    """When (s on the file's clock) the last picture leaves the screen; nothing is decoded."""
    last, length, count = None, 0.0, 0
    with open_media(path, VideoError) as container:
        stream = picture_stream(container, path)
        tick = _tick(stream)
        for packet in container.demux(stream):
            if packet.size == 0 or packet.is_discard:
                continue
            count += 1
            if packet.pts is not None and (last is None or packet.pts * tick > last):
                last, length = packet.pts * tick, (packet.duration or 0) * tick
    return float(last) + (float(length) or 1.0 / fps) if last is not None else count / fps


def _tick(stream) -> Fraction:
    """Seconds from one time stamp to the next."""
    assert stream.time_base is not None  # every stream of a file has one
    return stream.time_base


def decode_sound(container: InputContainer) -> list[tuple[float, np.ndarray]]:
    """[(start s, int16 [n] at 16 kHz mono)]: one piece, or more where the time stamps jump."""
    segments, pieces, resampler, begin, due = [], [], None, 0.0, 0.0

    def finish():
        if resampler is not None:
            pieces.extend(f.to_ndarray().reshape(-1) for f in resampler.resample(None))
        if pieces:
            segments.append((begin, np.concatenate(pieces)))

    for packet in container.demux(container.streams.audio[0]):
        try:
            frames = packet.decode()
        except InvalidDataError:
            continue  # damaged sound becomes a hole, filled with silence
        for frame in frames:
            time = frame.time if frame.time is not None else due
            if resampler is None or abs(time - due) > _GAP:
                finish()
                pieces, begin = [], time
                resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
                due = time
            due += frame.samples / frame.sample_rate
            frame.pts = None
            pieces.extend(f.to_ndarray().reshape(-1) for f in resampler.resample(frame))
    finish()
    return segments


def lay_out(segments: Sequence[tuple[float, np.ndarray]], start: float) -> np.ndarray:
    """Pieces at their times -> int16 [n] from `start` on; silence in the holes."""
    offsets = [round((time - start) * SAMPLE_RATE) for time, _ in segments]
    length = max([o + len(s) for o, (_, s) in zip(offsets, segments, strict=True)], default=0)
    out = np.zeros(max(length, 0), np.int16)
    for offset, (_, samples) in zip(offsets, segments, strict=True):
        kept = samples[max(0, -offset) :]
        out[max(0, offset) : max(0, offset) + len(kept)] = kept
    return out
