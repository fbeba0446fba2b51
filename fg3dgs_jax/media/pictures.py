"""The pictures of a video file: which stream, decoding with deinterlacing, the way up."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fg3dgs_jax.media import av
from fg3dgs_jax.media import timeline as timeline_lib
from fg3dgs_jax.media.container import VideoError, tick

_FIRST = 8  # pictures, whose scan is looked at
_SLANT = 0.05  # of a matrix that turns by quarters: cosine of 87 degrees


def picture_stream(container: av.InputContainer, path: os.PathLike | str) -> av.VideoStream:
    """The first video stream that is no cover picture."""
    streams = container.streams.video
    covers = [s for s in streams if s.disposition & av.Disposition.attached_pic]
    films = [s for s in streams if s not in covers]
    if not films:
        what = "only a cover picture" if covers else "no video stream"
        raise VideoError(f"{path} has {what}; expected a video with sound")
    if len(films) > 1:  # a cover that is not marked as one has a single picture
        films = [
            s for s in films if s.frames != 1 and not s.disposition & av.Disposition.still_image
        ]
        films = films or [s for s in streams if s not in covers]
    if films[0].codec_context is None:
        raise VideoError(f"{path} has pictures of a kind that FFmpeg cannot decode; expected H.264")
    return films[0]


def decode_pictures(
    container: av.InputContainer,
    stream: av.VideoStream,
    timeline: timeline_lib.Timeline,
    sought: bool = False,
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yields (time in s on the file's clock, frame) in the order in which they are shown.

    What cannot be decoded is left out: the picture before it stays on screen. Interlaced pictures
    are deinterlaced.

    Args:
      container: opened anew, or `sought`.
      stream: of its pictures.
      timeline: of the file.
      sought: the file is not read from its beginning: pictures before the first key picture are
        not to be trusted.
    """
    if not stream.codec_context.is_open:
        stream.thread_type = "AUTO"
    shift = timeline_lib.Shift() if sought else timeline.pictures
    packets = timeline_lib.put_right(container.demux(stream), shift)
    frames = _deinterlaced(_decoded(packets, sought))
    step = 1.0 / timeline.fps
    time = None
    for frame in frames:
        if frame.time is not None:
            time = frame.time if time is None else max(frame.time, time)
        else:
            time = 0.0 if time is None else time + step
        yield time, frame


class Beginning(NamedTuple):
    """The first pictures of a file."""

    start: float  # s on the file's clock, of the first
    first: av.VideoFrame
    interlaced: bool  # one of them is


def beginning(
    container: av.InputContainer, stream: av.VideoStream, timeline: timeline_lib.Timeline
) -> Beginning | None:
    """Decodes the first pictures of a container opened anew; None: there is no readable one."""
    packets = timeline_lib.put_right(container.demux(stream), timeline.pictures)
    frames = list(itertools.islice(_decoded(packets, False), _FIRST))
    if not frames:
        return None
    interlaced = any(frame.interlaced_frame for frame in frames)
    return Beginning(frames[0].time or 0.0, frames[0], interlaced)


def _decoded(packets, wait_for_key):
    for packet in packets:
        try:
            frames = packet.decode()
        except av.InvalidDataError:
            continue
        for frame in frames:
            wait_for_key = wait_for_key and not frame.key_frame
            if not wait_for_key:
                yield frame


def _deinterlaced(frames):
    """The frames; from the first interlaced one on, those that are so marked are put right."""
    graph, form = None, None
    for frame in frames:
        if graph is None and not frame.interlaced_frame:
            yield frame
            continue
        new_form = (frame.width, frame.height, frame.format.name)
        if graph is not None and new_form != form:
            yield from _rest(graph)
            graph = None
        if graph is None:
            graph, form = _deinterlacer(frame), new_form
        graph.push(frame)
        yield from _ready(graph)
    if graph is not None:
        yield from _rest(graph)


def _deinterlacer(frame):
    graph = av.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format.name, time_base=frame.time_base
    )
    graph.link_nodes(
        source,
        graph.add("bwdif", "mode=send_frame:deint=interlaced"),
        graph.add("buffersink"),
    ).configure()
    return graph


def _rest(graph):
    graph.push(None)
    return _ready(graph)


def _ready(graph):
    while True:
        try:
            frame = graph.pull()
            assert isinstance(frame, av.VideoFrame)
            yield frame
        except (BlockingIOError, EOFError):
            return


def seek_pictures(container: av.InputContainer, stream: av.VideoStream, time: float) -> None:
    """Goes to a key picture, where the file is right about itself the last not after `time` s."""
    with contextlib.suppress(av.FFmpegError):  # a file that cannot seek is read from where it is
        container.seek(int(time / tick(stream)), stream=stream, backward=True)


class Orientation(NamedTuple):
    """How a stored picture becomes upright; the steps in this order."""

    transposed: bool = False
    flips_rows: bool = False
    flips_columns: bool = False

    def apply(self, image: np.ndarray) -> np.ndarray:
        """The picture [H, W, ...] upright."""
        image = image.swapaxes(0, 1) if self.transposed else image
        return image[:: -1 if self.flips_rows else 1, :: -1 if self.flips_columns else 1]

    def __str__(self) -> str:
        """What is done, in words; empty where nothing is."""
        mirrored = self.transposed ^ self.flips_rows ^ self.flips_columns
        turned = self.transposed or (self.flips_rows and self.flips_columns)
        names = ["turned"] * turned + ["mirrored"] * mirrored
        return f"{' and '.join(names)} as its header says" if names else ""


def orientation_of(frame: av.VideoFrame, path: os.PathLike | str) -> Orientation:
    """How a frame is to be shown, by the matrix of its header.

    Raises:
      VideoError: neither quarter turns nor mirrors.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return Orientation()
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].astype(np.float64)
    size = np.hypot([a, c], [b, d])
    if not size.all():
        return Orientation()  # no picture has no extent: a header that was not filled in
    # A pixel at (x, y) is shown at (a x + c y, b x + d y).
    (a, c), (b, d) = (a, c) / size, (b, d) / size
    if max(abs(b), abs(c)) < _SLANT:
        return Orientation(False, bool(d < 0), bool(a < 0))
    if max(abs(a), abs(d)) < _SLANT:
        return Orientation(True, bool(b < 0), bool(c < 0))
    raise VideoError(
        f"{path} is shown turned by {np.degrees(np.arctan2(b, a)):.0f} degrees; expected quarter "
        "turns: turn it upright and write it anew"
    )
