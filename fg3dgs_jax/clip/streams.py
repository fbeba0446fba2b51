"""The pictures of a processed folder as four H.264 streams, and back.

| stream | holds | loss |
|---|---|---|
| `frames.mkv` | the frames, 4:4:4 | nearly none: 47 dB on a real clip |
| `labels.mkv` | one grey level a pixel: the label, and 32 times what the torso's pixel is | none |
| `torso.mkv` | colours of those torso pixels that the frame does not show | nearly none |
| `alpha.mkv` | alpha of the torso's edges | nearly none |

Where the torso's pixel is the frame's, as it is nearly everywhere below the head, it is not stored
twice: after the round trip the two still agree exactly, and so does what is drawn from them.

Every `GROUP`-th picture stands by itself, so that any picture is at most `GROUP` pictures away.
`decoded.py` reads them by their numbers.
"""

import contextlib
import os
import pathlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction

import cv2
import numpy as np

from fg3dgs_jax.clip.inpaint import fill
from fg3dgs_jax.media import av
from fg3dgs_jax.media.clock import FPS

STREAMS = ("frames.mkv", "labels.mkv", "torso.mkv", "alpha.mkv")
GROUP = 4  # pictures: on average two and a half are decoded to see one
BLOCK = 16  # px; colours between those that are kept change over so many
STATE = 32  # times the state stands in the labels' stream; labels are below it
CLEAR, SHOWN, HIDDEN, EDGE = range(4)  # a torso pixel: alpha 0; 255 and the frame's; 255; between
# One thread: with more the pictures would depend on their number.
_ALL = {"preset": "veryfast", "g": str(GROUP), "bf": "0", "threads": "1"}
# Without CABAC a frame takes a seventh more room and a third less time to decode.
_COLOUR = {"crf": "10", "x264-params": "cabac=0"}
_BEHIND = {"crf": "18", "x264-params": "cabac=0"}  # hardly seen: behind the head, thin edges
_EDGES = {"crf": "8"}
_LOSSLESS = {"qp": "0"}
_CODING = {  # planes, and how well they are kept; other streams hold grey levels without loss
    "frames": ("yuv444p", _COLOUR),
    "torso": ("yuv444p", _BEHIND),
    "alpha": ("gray", _EDGES),
}


_NOWHERE = -GROUP - 1  # a place from which every picture is far
_REMEDY = "expected one of preprocess or --unpack: remove the folder and make it again"


class StreamError(ValueError):
    """A stream that cannot be read, or is not of such pictures; one line."""


def write(
    folder: os.PathLike | str,
    pictures: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> None:
    """Writes the four streams of a clip into a folder.

    Args:
      folder: where the files are to be.
      pictures: frame uint8 [H, W, 3], labels uint8 [H, W] and torso uint8 [H, W, 4] (straight
        alpha) of one picture after the other.
    """
    names = (pathlib.Path(name).stem for name in STREAMS)
    with Sinks({name: pathlib.Path(folder, f"{name}.mkv") for name in names}) as sinks:
        for frame, labels, torso in pictures:
            sinks.add(frame_planes(frame) | layer_planes(frame, labels, torso))


def whole(folder: os.PathLike | str) -> bool:
    """Whether a folder has all four streams."""
    return all(pathlib.Path(folder, name).exists() for name in STREAMS)


def frame_planes(frame: np.ndarray) -> dict[str, np.ndarray]:
    """What `frames.mkv` holds of a frame, for `Sinks.add`."""
    return {"frames": _to_yuv(frame)}


def layer_planes(frame: np.ndarray, labels: np.ndarray, torso: np.ndarray) -> dict[str, np.ndarray]:
    """What the other three streams hold of a frame's layers, for `Sinks.add`.

    Raises:
      StreamError: a label that there is no room for.
    """
    if labels.max() >= STATE:
        raise StreamError(f"a label is {labels.max()}; expected at most {STATE - 1}")
    state = torso_state(frame, torso)
    rest = (state == HIDDEN) | (state == EDGE)
    return {
        "labels": labels | state * np.uint8(STATE),
        "torso": _to_yuv(_spread(torso[..., :3], rest)),
        "alpha": torso[..., 3],
    }


def frame_of(planes: np.ndarray) -> np.ndarray:
    """The frame of a picture of `frames.mkv`."""
    return _to_rgb(planes)


def labels_of(planes: np.ndarray) -> np.ndarray:
    """The labels of a picture of `labels.mkv`."""
    return planes[0] & np.uint8(STATE - 1)


def torso_of(
    frame: np.ndarray, labels: np.ndarray, colours: np.ndarray, alpha: np.ndarray
) -> np.ndarray:
    """The torso of one frame: its frame, and the planes of the other three streams."""
    coded = labels[0]

    def mask(state):
        return cv2.inRange(coded, STATE * state, STATE * state + STATE - 1)

    shown = cv2.copyTo(frame, mask(SHOWN), _to_rgb(colours))
    opacity = cv2.copyTo(alpha[0], mask(EDGE), cv2.inRange(coded, STATE, STATE * EDGE - 1))
    torso = cv2.cvtColor(shown, cv2.COLOR_RGB2RGBA)
    cv2.insertChannel(opacity, torso, 3)
    return cv2.copyTo(torso, cv2.inRange(coded, STATE, 255))


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


class Sinks(contextlib.AbstractContextManager):
    """Streams in the making, one file each; the files are whole when the block ends."""

    def __init__(self, paths: Mapping[str, os.PathLike | str]) -> None:
        """Takes {stream: its file}; the name of a stream says how it is coded."""
        self._paths = {name: pathlib.Path(path) for name, path in paths.items()}
        self._sinks: dict[str, _Sink] = {}

    def add(self, planes: Mapping[str, np.ndarray]) -> None:
        """Appends {stream: uint8 [3, H, W] or grey [H, W]}, one picture of each stream."""
        for name, values in planes.items():
            if name not in self._sinks:
                self._sinks[name] = _Sink(self._paths[name], name, values.shape[-2:])
            self._sinks[name].add(values)

    def __exit__(self, kind, *error) -> None:
        """Closes the files; after an error they are of no use."""
        for sink in self._sinks.values():
            with contextlib.suppress(Exception) if kind else contextlib.nullcontext():
                sink.close()


class _Sink:
    """One stream in the making."""

    def __init__(self, path, name, size):
        self.form, quality = _CODING.get(name, ("gray", _LOSSLESS))
        # By a Python file: its errors (a full disk) arrive as they are.
        self.file = path.open("wb")
        self.container = av.open(self.file, "w", format="matroska")
        self.stream = self.container.add_stream("libx264", rate=FPS, options=_ALL | quality)
        self.stream.height, self.stream.width = size
        self.stream.pix_fmt = self.form
        # Levels 0 to 255 by BT.601's matrix, as OpenCV makes them: said for players.
        context = self.stream.codec_context
        context.color_range, context.colorspace = 2, 6
        self.count = 0

    def add(self, values):
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(values), format=self.form)
        picture.pts, picture.time_base = self.count, Fraction(1, FPS)
        self.count += 1
        self.container.mux(self.stream.encode(picture))

    def close(self):
        with self.file:
            try:
                self.container.mux(self.stream.encode(None))
            finally:
                self.container.close()


class Source:
    """One stream that was written, read by the numbers of its pictures; threads may share it."""

    def __init__(self, path: os.PathLike | str) -> None:
        """Opens the stream.

        Raises:
          StreamError: it is missing or damaged.
        """
        self.path = pathlib.Path(path)
        self._lock = threading.Lock()
        with self._reading():
            self._container = av.open(str(self.path))
            self._stream = self._container.streams.video[0]
        self._stream.thread_type = "NONE"
        self._stream.thread_count = 1
        self._pictures: Iterator[av.VideoFrame] = iter(())
        self._next = _NOWHERE
        self._passed: dict[int, av.VideoFrame] = {}

    def __len__(self) -> int:
        """The number of pictures."""
        return round((self._container.duration or 0) * FPS / av.time_base)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, px."""
        return self._stream.height, self._stream.width

    def planes(self, number: int) -> np.ndarray:
        """uint8 [1 or 3, H, W] of a picture: full planes as they are coded, colours unconverted.

        Raises:
          StreamError: the stream is damaged there, or has fewer pictures.
        """
        with self._lock, self._reading():
            if number not in self._passed:
                self._decode(number)
            return _full_planes(self._passed[number])

    def _decode(self, number):
        """Goes on to a picture, or begins at the one before it that stands by itself.

        Those on the way stay for a moment: streams are also played backwards.
        """
        if not self._next <= number < self._next + GROUP:
            self._passed.clear()
            at = Fraction(number, FPS) / (self._stream.time_base or Fraction(1, 1000))
            self._container.seek(round(at), stream=self._stream)
            self._pictures = self._container.decode(self._stream)
        for picture in self._pictures:
            here = round(picture.time * FPS)
            self._next = here + 1
            self._passed[here] = picture
            self._passed.pop(here - GROUP, None)
            if here == number:
                return
            if here > number:
                break
        self._next = _NOWHERE
        raise StreamError(f"{self.path} has no picture {number}; {_REMEDY}")

    @contextlib.contextmanager
    def _reading(self):
        try:
            yield
        except (av.FFmpegError, IndexError):
            self._next = _NOWHERE
            state = "is damaged" if self.path.exists() else "is missing"
            raise StreamError(f"{self.path} {state}; {_REMEDY}") from None


def _full_planes(picture):
    full = [p for p in picture.planes if (p.height, p.width) == (picture.height, picture.width)]
    rows = [np.asarray(memoryview(p)).reshape(p.height, p.line_size) for p in full]
    return np.stack([r[:, : picture.width] for r in rows])


def _to_yuv(rgb):
    """uint8 [H, W, 3] -> [3, H, W]."""
    y, cr, cb = cv2.split(cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2YCrCb))
    return np.stack([y, cb, cr])


def _to_rgb(planes):
    y, cb, cr = planes
    return cv2.cvtColor(cv2.merge([y, cr, cb]), cv2.COLOR_YCrCb2RGB)
