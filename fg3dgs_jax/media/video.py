"""Video and sound files in and out, through PyAV: always 25 fps RGB and 16 kHz mono on one clock.

Time zero is the start of the first picture. Frame i lasts from i/25 s to (i + 1)/25 s and is the
picture that the source shows in the middle of that: so other rates are met without a bias, and time
stamps that jitter by less than half a frame neither drop nor repeat a picture. Sample j is the
sound at j/16000 s; so frame i starts at sample 640 i whatever the source's rates, gaps and stream
offsets were.
"""

import dataclasses
import itertools
import os
import pathlib
import wave
from collections.abc import Iterator

import cv2
import numpy as np
from av.error import FFmpegError

from fg3dgs_jax.media.clock import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from fg3dgs_jax.media.container import (
    AudioError,
    StreamInfo,
    VideoError,
    decode_pictures,
    decode_sound,
    lay_out,
    open_media,
    picture_end,
    picture_stream,
    probe_streams,
    seek_pictures,
)
from fg3dgs_jax.media.video_writer import write_video
from fg3dgs_jax.media.whole_files import whole

__all__ = [
    "FPS",
    "SAMPLE_RATE",
    "AudioError",
    "StreamInfo",
    "Video",
    "VideoError",
    "probe_streams",
    "read_audio",
    "read_video",
    "read_wav",
    "write_video",
    "write_wav",
]

_CLOCK_SLACK = 0.002  # s; containers round time stamps to a millisecond


@dataclasses.dataclass(frozen=True)
class Video:
    """An opened video. Pictures are decoded anew at every call of `frames`, one at a time."""

    path: pathlib.Path
    num_frames: int  # T
    height: int  # px, of what `frames` yields
    width: int
    samples: np.ndarray  # int16 [T * 640], 16 kHz mono, silence where the source has no sound
    source_fps: float
    start: float  # s on the source's clock
    turns: int  # quarter turns anticlockwise that put the picture upright
    source_size: tuple[int, int]  # (height, width) px of the whole upright picture
    av_offset: float = 0.0  # s by which the sound has been moved back
    window: tuple[int, int, int, int] | None = None  # (row, column, height, width) of it; None: all
    skipped: int = 0  # frames of the file that lie before frame 0

    def cropped(self, window: tuple[int, int, int, int], size: int) -> "Video":
        """The same video with only `window` of every picture, resized to `size` x `size` px."""
        row, column, height, width = window
        if min(row, column) < 0 or (
            row + height > self.source_size[0] or column + width > self.source_size[1]
        ):
            raise ValueError(
                f"window {window} leaves the picture of {self.source_size[0]} x "
                f"{self.source_size[1]} px; expected (row, column, height, width) inside it"
            )
        return dataclasses.replace(self, window=tuple(window), height=size, width=size)

    def moved(self, av_offset: float) -> "Video":
        """The same video with the file's sound moved back by `av_offset` s."""
        if av_offset == self.av_offset:
            return self
        begin = self.start + self.skipped / FPS + av_offset
        samples = _sound_from(self.path, begin, len(self.samples))
        return dataclasses.replace(self, samples=samples, av_offset=av_offset)

    def frames(self, first: int = 0, count: int | None = None) -> Iterator[np.ndarray]:
        """Yields pictures `first` .. `first + count` (default: all), uint8 [H, W, 3] RGB.

        A repeated picture is the same array. From a later `first` on the file is read from the
        nearest key picture before it.
        """
        first, last = first + self.skipped, self.num_frames + self.skipped
        if count is not None:
            last = min(first + count, last)
        due = first
        if due >= last:
            return
        shown, shown_array = None, None
        with open_media(self.path, VideoError) as container:
            for time, frame in self._decoded_before(container, first):
                # The pictures due before this one appears still show the one before it.
                while (
                    shown is not None
                    and due < last
                    and (due + 0.5) / FPS < time - self.start - _CLOCK_SLACK
                ):
                    shown_array = self._upright(shown) if shown_array is None else shown_array
                    yield shown_array
                    due += 1
                shown, shown_array = frame, None
                if due >= last:
                    return
            if shown is None:
                raise VideoError(
                    f"{self.path} is damaged: nothing can be decoded from {first / FPS:.2f} s on; "
                    f"expected {last / FPS:.2f} s of pictures"
                )
            shown_array = self._upright(shown) if shown_array is None else shown_array
            while due < last:
                yield shown_array
                due += 1

    def read_into(self, out: np.ndarray) -> None:
        """Fills a uint8 [T, H, W, 3] array or memory map."""
        if out.shape != (self.num_frames, self.height, self.width, 3) or out.dtype != np.uint8:
            raise ValueError(
                f"out is {out.dtype} {out.shape}; expected uint8 "
                f"{(self.num_frames, self.height, self.width, 3)}"
            )
        for i, frame in enumerate(self.frames()):
            out[i] = frame

    def _decoded_before(self, container, first):
        """(time, picture) pairs that begin with one shown no later than frame `first`."""
        latest = self.start + (first + 0.5) / FPS + _CLOCK_SLACK
        for back in (0.0, 2.0, 10.0):  # s; some files' key pictures are listed wrongly
            if first / FPS <= back:
                break
            seek_pictures(container, latest - back)
            pictures = decode_pictures(container, self.source_fps)
            try:
                head = next(pictures)
            except (StopIteration, FFmpegError):
                continue
            if head[1].time is not None and head[0] <= latest:
                return itertools.chain([head], pictures)
        seek_pictures(container, None)
        return decode_pictures(container, self.source_fps)

    def _upright(self, frame):
        size = self.source_size[::-1] if self.turns % 2 == 0 else self.source_size
        image = frame.to_ndarray(format="rgb24", width=size[0], height=size[1])
        image = np.rot90(image, self.turns)
        if self.window is None:
            return np.ascontiguousarray(image)
        row, column, height, width = self.window
        part = np.ascontiguousarray(image[row : row + height, column : column + width])
        smaller = height >= self.height
        way = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
        return cv2.resize(part, (self.width, self.height), interpolation=way)


def read_video(
    path: os.PathLike | str,
    *,
    min_frames: int = FPS,
    max_seconds: float | None = None,
    av_offset: float = 0.0,
    start: float = 0.0,
    end: float | None = None,
) -> Video:
    """Opens a video with sound, re-timed to 25 fps and 16 kHz mono (see the top of this file).

    Args:
      path: any file that FFmpeg reads.
      min_frames: fewer are refused.
      max_seconds: use only so many seconds from `start` on.
      av_offset: s by which the file's sound is late (negative: early); it is moved back by that.
      start: s from the first picture on at which the part to use begins.
      end: s at which it ends. None: with the file.

    Raises:
      VideoError: no such file, not a video, no pictures, no sound, or fewer than `min_frames`
        frames.
    """
    path = pathlib.Path(path)
    with open_media(path, VideoError) as container:
        stream = picture_stream(container, path)
        fps = float(stream.average_rate or stream.guessed_rate or FPS)
        try:
            first_time, first = next(decode_pictures(container, fps))
        except (StopIteration, FFmpegError):
            raise VideoError(
                f"{path} holds a video stream without one readable picture: expected a video file"
            ) from None
        ratio = float(stream.sample_aspect_ratio or 1)
        turns = round(first.rotation / 90) % 4
    size = (first.height, round(first.width * ratio))
    height, width = size if turns % 2 == 0 else size[::-1]
    whole = round((picture_end(path, fps) - first_time) * FPS)
    skipped, num_frames = _part(path, whole, (start, end, max_seconds))
    begin = first_time + skipped / FPS
    samples = _sound_from(path, begin + av_offset, num_frames * SAMPLES_PER_FRAME)
    if num_frames < min_frames:
        raise VideoError(
            f"{path} is {num_frames} frames long at {FPS} fps ({num_frames / FPS:.2f} s); "
            f"expected at least {min_frames} ({min_frames / FPS:g} s): use a longer video"
        )
    size = (height, width)
    opened = Video(path, num_frames, *size, samples, fps, first_time, turns, size, av_offset)
    return dataclasses.replace(opened, skipped=skipped)


def _part(path, whole, limits):
    """(frames before it, its number of frames) of the part of a video of `whole` frames.

    `limits`: start, end and max_seconds of `read_video`.
    """
    start, end, max_seconds = limits
    skipped, stop = round(start * FPS), whole
    if end is not None:
        stop = min(stop, round(end * FPS))
    if max_seconds is not None:
        stop = min(stop, skipped + int(max_seconds * FPS))
    if skipped and skipped >= whole:
        raise VideoError(
            f"{path} lasts {whole / FPS:.2f} s; --start {start:g} lies behind its end: expected "
            "less than that"
        )
    return skipped, max(stop - skipped, 0)


def read_audio(path: os.PathLike | str) -> np.ndarray:
    """The sound of any audio or video file -> int16 [n], 16 kHz mono.

    Raises:
      AudioError: no such file, not sound, or no samples.
    """
    path = pathlib.Path(path)
    with open_media(path, AudioError) as container:
        if not container.streams.audio:
            raise AudioError(f"{path} has no sound; expected an audio file, or a video with sound")
        segments = decode_sound(container)
    samples = lay_out(segments, segments[0][0] if segments else 0.0)
    if not len(samples):
        raise AudioError(
            f"{path} holds no samples of sound; expected an audio file (wav, mp3, m4a, mp4, ...)"
        )
    return samples


def write_wav(path: os.PathLike | str, samples: np.ndarray, sample_rate: int = SAMPLE_RATE) -> None:
    """int16 [n] mono -> wav; the file appears whole or not at all."""
    samples = np.asarray(samples)
    if samples.ndim != 1 or samples.dtype != np.int16:
        raise ValueError(f"samples are {samples.dtype} {samples.shape}; expected int16 [n]")
    with whole(path) as part, wave.open(str(part), "wb") as file:
        file.setparams((1, 2, sample_rate, 0, "NONE", "not compressed"))
        file.writeframes(samples.astype("<i2").tobytes())


def read_wav(path: os.PathLike | str) -> np.ndarray:
    """A wav that is 16 kHz mono int16 already (see `write_wav`) -> int16 [n], bit for bit."""
    try:
        with wave.open(str(path), "rb") as file:
            form = (file.getframerate(), file.getnchannels(), 8 * file.getsampwidth())
            data = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise AudioError(
            f"{path} is not a readable wav file ({error}); expected 16 kHz mono int16"
        ) from None
    if form != (SAMPLE_RATE, 1, 16):
        raise AudioError(
            f"{path} is {form[0]} Hz, {form[1]} channels, {form[2]} bits; "
            "expected 16000 Hz, 1, 16: use read_audio"
        )
    return np.frombuffer(data, "<i2").astype(np.int16)


def _sound_from(path, start, length):
    """int16 [length] of sound from time `start` (s on the file's clock) on."""
    with open_media(path, VideoError) as container:
        segments = decode_sound(container) if container.streams.audio else []
    if not segments:
        raise VideoError(
            f"{path} has no sound; expected a video in which the person is heard speaking"
        )
    samples = lay_out(segments, start)[:length]
    return np.pad(samples, (0, length - len(samples)))
