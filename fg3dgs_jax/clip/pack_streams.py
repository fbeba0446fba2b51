"""The pictures of a processed folder as four H.264 streams, and back.

| stream | holds | loss |
|---|---|---|
| `frames.mkv` | the frames, 4:4:4 | nearly none: 47 dB on a real clip |
| `labels.mkv` | one grey level a pixel: the label, and 32 times what the torso's pixel is | none |
| `torso.mkv` | colours of those torso pixels that the frame does not show | nearly none |
| `alpha.mkv` | alpha of the torso's edges | nearly none |

Where the torso's pixel is the frame's, as it is nearly everywhere below the head, it is not stored
twice: after the round trip the two still agree exactly, and so does what is drawn from them.
"""

import hashlib
import os
import pathlib
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple

import av
import cv2
import numpy as np
from av.error import FFmpegError

from fg3dgs_jax.clip.inpaint import fill
from fg3dgs_jax.media.clock import FPS

STREAMS = ("frames.mkv", "labels.mkv", "torso.mkv", "alpha.mkv")
BLOCK = 16  # px; colours between those that are kept change over so many
STATE = 32  # times the state stands in the labels' stream; labels are below it
CLEAR, SHOWN, HIDDEN, EDGE = range(4)  # a torso pixel: alpha 0; 255 and the frame's; 255; between
_COLOUR = {"crf": "10", "preset": "medium"}
_BEHIND = {"crf": "16", "preset": "medium"}  # hardly seen: behind the head, and thin edges
_EDGES = {"crf": "8", "preset": "medium"}
_LOSSLESS = {"qp": "0", "preset": "medium"}


class Pictures(NamedTuple):
    """What the streams hold of one frame."""

    frame: np.ndarray  # uint8 [H, W, 3]
    labels: np.ndarray  # uint8 [H, W]
    torso: np.ndarray  # uint8 [H, W, 4], straight alpha


class StreamError(ValueError):
    """A stream that cannot be read, or is not of such pictures; one line."""


def write(
    folder: os.PathLike | str,
    pictures: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
    height: int,
    width: int,
) -> str:
    """Writes the four streams of an iterable of `Pictures` into a folder, one picture at a time.

    Returns:
      sha256 (hex) of all labels, which the way back can be checked by.
    """
    digest = hashlib.sha256()
    sinks = [
        _Sink(pathlib.Path(folder, name), form, options, height, width)
        for name, form, options in zip(
            STREAMS,
            ("yuv444p", "gray", "yuv444p", "gray"),
            (_COLOUR, _LOSSLESS, _BEHIND, _EDGES),
            strict=True,
        )
    ]
    try:
        for frame, labels, torso in pictures:
            if labels.max() >= STATE:
                raise StreamError(f"a label is {labels.max()}; expected at most {STATE - 1}")
            digest.update(labels.tobytes())
            state = torso_state(frame, torso)
            rest = (state == HIDDEN) | (state == EDGE)
            colours = _spread(torso[..., :3], rest)
            planes = _to_yuv(frame), labels | state * np.uint8(STATE), _to_yuv(colours)
            for sink, values in zip(sinks, (*planes, torso[..., 3]), strict=True):
                sink.add(values)
    finally:
        for sink in sinks:
            sink.close()
    return digest.hexdigest()


def read(folder: os.PathLike | str) -> Iterator[Pictures]:
    """Yields the `Pictures` of four streams, one at a time.

    Raises:
      StreamError: a stream is damaged or has fewer pictures than another.
    """
    streams = [_planes(pathlib.Path(folder, name)) for name in STREAMS]
    try:
        for colour, coded, hidden, alpha in zip(*streams, strict=True):
            frame, labels, state = _to_rgb(colour), coded[0] % STATE, coded[0] // STATE
            torso = np.empty((*labels.shape, 4), np.uint8)
            torso[..., :3] = np.where((state == SHOWN)[..., None], frame, _to_rgb(hidden))
            torso[..., 3] = np.choose(state, (0, 255, 255, alpha[0]))
            torso[state == CLEAR] = 0
            yield Pictures(frame, labels, torso)
    except FFmpegError as error:
        raise StreamError(f"a stream cannot be decoded ({error.strerror})") from None
    except ValueError as error:  # zip: one ended before another, or its pictures differ in size
        raise StreamError(f"the streams do not fit together ({error})") from None


def torso_state(frame: np.ndarray, torso: np.ndarray) -> np.ndarray:
    """uint8 [H, W] of CLEAR, SHOWN, HIDDEN, EDGE."""
    alpha, same = torso[..., 3], (torso[..., :3] == frame).all(-1)
    solid = np.where(same, np.uint8(SHOWN), np.uint8(HIDDEN))
    between = np.where(alpha == 0, np.uint8(CLEAR), np.uint8(EDGE))
    return np.where(alpha == 255, solid, between)


def _spread(image, known):
    """uint8 [H, W, 3] with pixels not `known` [H, W] in colours of those around: cheap to code."""
    height, width = known.shape
    small = (max(1, width // BLOCK), max(1, height // BLOCK))

    def shrink(x):
        return cv2.resize(x, small, interpolation=cv2.INTER_AREA)

    share = shrink(known.astype(np.float32))
    total = shrink(image * known[..., None].astype(np.float32))
    mean = np.clip(total / np.maximum(share, 1e-6)[..., None], 0, 255).astype(np.uint8)
    around = cv2.resize(fill(mean, share > 0), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.where(known[..., None], image, around)


class _Sink:
    """One stream in the making."""

    def __init__(self, path, form, options, height, width):
        self.container = av.open(str(path), "w", format="matroska")
        self.stream = self.container.add_stream("libx264", rate=FPS, options=options)
        self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, form
        # Levels 0 to 255 by BT.601's matrix, as OpenCV makes them: said for players.
        context = self.stream.codec_context
        context.color_range, context.colorspace = 2, 6
        self.form, self.count = form, 0

    def add(self, values):
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(values), format=self.form)
        picture.pts, picture.time_base = self.count, Fraction(1, FPS)
        self.count += 1
        self.container.mux(self.stream.encode(picture))

    def close(self):
        with self.container:
            if self.count:
                self.container.mux(self.stream.encode(None))


def _planes(path):
    """Yields uint8 [1 or 3, H, W]: full planes as they are coded, no conversion of colours."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for picture in container.decode(stream):
            full = [p for p in picture.planes if (p.height, p.width) == _size(picture)]
            rows = [np.asarray(memoryview(p)).reshape(p.height, p.line_size) for p in full]
            yield np.stack([r[:, : picture.width] for r in rows])


def _size(picture):
    return picture.height, picture.width


def _to_yuv(rgb):
    """uint8 [H, W, 3] -> [3, H, W]."""
    y, cr, cb = cv2.split(cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2YCrCb))
    return np.stack([y, cb, cr])


def _to_rgb(planes):
    y, cb, cr = planes
    return cv2.cvtColor(cv2.merge([y, cr, cb]), cv2.COLOR_YCrCb2RGB)
