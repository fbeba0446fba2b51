"""Video and sound files in and out, through PyAV: always 25 fps RGB and 16 kHz mono on one clock.

Time zero is the start of the first picture. Frame i lasts from i/25 s to (i + 1)/25 s and is the
picture that the source shows in the middle of that: so other rates are met without a bias, and time
stamps that jitter by less than half a frame neither drop nor repeat a picture. Sample j is the
sound at j/16000 s; so frame i starts at sample 640 i whatever the source's rates, gaps and stream
offsets were.
"""

import contextlib
import dataclasses
import itertools
import math
import os
import pathlib
import wave
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from fg3dgs_jax.media import av
from fg3dgs_jax.media import colours as colours_lib
from fg3dgs_jax.media import pictures as pictures_lib
from fg3dgs_jax.media import sound as sound_lib
from fg3dgs_jax.media import timeline as timeline_lib
from fg3dgs_jax.media.clock import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from fg3dgs_jax.media.container import (
    AudioError,
    StreamInfo,
    VideoError,
    open_media,
    probe_streams,
)
from fg3dgs_jax.media.sound import KEPT_RATE, SILENT, Track
from fg3dgs_jax.media.video_writer import write_video
from fg3dgs_jax.media.whole_files import whole

__all__ = [
    "FPS",
    "KEPT_RATE",
    "SAMPLE_RATE",
    "SILENT",
    "AudioError",
    "Heard",
    "SoundFile",
    "Source",
    "StreamInfo",
    "Track",
    "Video",
    "VideoError",
    "as_it_came",
    "listen",
    "probe_streams",
    "read_audio",
    "read_video",
    "read_wav",
    "write_video",
    "write_wav",
]

_CLOCK_SLACK = 0.002  # s; containers round time stamps to a millisecond
_NEIGHBOURS = 3  # pictures before one that deinterlacing looks at, and one more


class Source(NamedTuple):
    """What is known about a video file before all of it is decoded."""

    timeline: timeline_lib.Timeline
    orientation: pictures_lib.Orientation
    colours: colours_lib.Colours
    interlaced: bool  # its pictures are deinterlaced
    tracks: tuple[Track, ...]  # of sound
    track: Track  # the one that is used
    inverted: bool  # its two channels cancel each other: one is turned over
    forms: tuple[str, ...]  # rate and channels of its sound, one after the other


class SoundFile(NamedTuple):
    """A file with sound, and which of its tracks is meant."""

    path: os.PathLike | str
    audio_track: int | None = None  # 1 for the first; None: the one that players take


class Heard(NamedTuple):
    """The sound of a file."""

    samples: np.ndarray  # int16 [n], 16 kHz mono
    track: Track
    inverted: bool  # two channels cancelled each other: one is turned over


@dataclasses.dataclass(frozen=True)
class Video:
    """An opened video. Pictures are decoded anew at every call of `frames`, one at a time."""

    path: pathlib.Path
    num_frames: int  # T
    height: int  # px, of what `frames` yields
    width: int
    samples: np.ndarray  # int16 [T * 640], 16 kHz mono, silence where the source has no sound
    source_fps: float  # pictures a second that the file holds, on average
    start: float  # s on the source's clock
    source: Source
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
        decoded = _decode_sound(self.path, self.source.track, self.source.timeline.sound)
        begin = self.start + self.skipped / FPS + av_offset
        samples = _sound_from(decoded, begin, len(self.samples))
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
        with contextlib.ExitStack() as files:
            for time, frame in self._decoded_from(files, first):
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

    def _decoded_from(self, files, first):
        """(time, picture) pairs, of a file sought or read from its beginning, see below."""
        pictures = None
        if first:
            pictures = self._sought(files.enter_context(open_media(self.path, VideoError)), first)
        if pictures is None:
            # A file that has been sought need not lead back to its beginning.
            files.close()
            container = files.enter_context(open_media(self.path, VideoError))
            stream = pictures_lib.picture_stream(container, self.path)
            pictures = pictures_lib.decode_pictures(container, stream, self.source.timeline)
        return pictures

    def _sought(self, container, first):
        """Pairs that begin with a picture shown no later than frame `first`, or None."""
        stream = pictures_lib.picture_stream(container, self.path)
        timeline = self.source.timeline
        latest = self.start + (first + 0.5) / FPS + _CLOCK_SLACK
        if self.source.interlaced:  # what is deinterlaced looks at its neighbours
            latest -= _NEIGHBOURS / timeline.fps
        # Some files' key pictures are listed wrongly, and others have no list.
        for back in (0.0, 2.0, 10.0) if timeline.seekable else ():  # s
            if first / FPS <= back + _NEIGHBOURS / timeline.fps:
                break
            pictures_lib.seek_pictures(container, stream, latest - back)
            pictures = pictures_lib.decode_pictures(container, stream, timeline, sought=True)
            try:
                head = next(pictures)
            except (StopIteration, av.FFmpegError):
                continue
            if head[1].time is not None and head[0] <= latest:
                return itertools.chain([head], pictures)
        return None

    def _upright(self, frame):
        colours = self.source.colours
        if frame.color_trc != colours.transfer or frame.colorspace != colours.matrix:
            colours = colours_lib.colours_of(frame, self.path)
        orientation = self.source.orientation
        height, width = self.source_size
        size = (height, width) if orientation.transposed else (width, height)
        image = orientation.apply(colours_lib.numbers(frame, colours, size, self.path))
        if self.window is None:
            return np.ascontiguousarray(colours_lib.show(image, colours))
        row, column, height, width = self.window
        part = np.ascontiguousarray(image[row : row + height, column : column + width])
        smaller = height >= self.height
        way = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
        part = cv2.resize(part, (self.width, self.height), interpolation=way)
        return colours_lib.show(part, colours)


def read_video(
    path: os.PathLike | str,
    *,
    min_frames: int = FPS,
    max_seconds: float | None = None,
    av_offset: float = 0.0,
    audio_track: int | Track | None = None,
    start: float = 0.0,
    end: float | None = None,
) -> Video:
    """Opens a video with sound, re-timed to 25 fps and 16 kHz mono (see the top of this file).

    Args:
      path: any file that FFmpeg reads.
      min_frames: fewer are refused.
      max_seconds: use only so many seconds from `start` on.
      av_offset: s by which the file's sound is late (negative: early); it is moved back by that.
      audio_track: number of the sound track, 1 for the first. None: the one that players take.
        `SILENT`: none, the sound is silence.
      start: s from the first picture on at which the part to use begins.
      end: s at which it ends. None: with the file.

    Raises:
      VideoError: no such file, not a video, no pictures, no sound, or fewer than `min_frames`
        frames.
    """
    for name, value in (("max_seconds", max_seconds), ("end", end)):
        if value is not None and not 0 < value < math.inf:
            raise VideoError(f"{name} is {value}; expected a number of seconds above 0")
    if not 0 <= start < math.inf:
        raise VideoError(f"start is {start}; expected a number of seconds, 0 or more")
    path = pathlib.Path(path)
    with open_media(path, VideoError) as container:
        stream = pictures_lib.picture_stream(container, path)
        tracks = tuple(sound_lib.tracks_of(container))
        if isinstance(audio_track, Track):
            track = audio_track
        else:
            track = sound_lib.choose_track(container, audio_track, path)
        ratio = float(stream.sample_aspect_ratio or 1)
        listened = container.streams.audio[track.number - 1] if track != SILENT else None
        timeline = timeline_lib.survey(container, stream, listened, path)
    with open_media(path, VideoError) as container:
        stream = pictures_lib.picture_stream(container, path)
        begins = pictures_lib.beginning(container, stream, timeline)
        if begins is None:
            raise VideoError(
                f"{path} holds a video stream without one readable picture: expected a video file"
            )
        first_time, first = begins.start, begins.first
        orientation = pictures_lib.orientation_of(first, path)
        colours = colours_lib.colours_of(first, path)
    size = (first.height, round(first.width * ratio))
    height, width = size[::-1] if orientation.transposed else size
    whole = round((timeline.end - first_time) * FPS)
    skipped, num_frames = _part(path, whole, (start, end, max_seconds))
    if num_frames < min_frames:
        raise VideoError(
            f"{path} is {num_frames} frames long at {FPS} fps ({num_frames / FPS:.2f} s); "
            f"expected at least {min_frames} ({min_frames / FPS:g} s): use a longer video"
        )
    decoded = _decode_sound(path, track, timeline.sound)
    if not decoded.segments and track != SILENT:
        raise VideoError(
            f"{path} has a sound track without sound; expected a video in which the person is "
            "heard speaking"
        )
    begin = first_time + skipped / FPS + av_offset
    samples = _sound_from(decoded, begin, num_frames * SAMPLES_PER_FRAME)
    source = Source(
        timeline,
        orientation,
        colours,
        begins.interlaced,
        tracks,
        track,
        decoded.inverted,
        decoded.forms,
    )
    opened = Video(
        path,
        num_frames,
        height,
        width,
        samples,
        timeline.fps,
        first_time,
        source,
        (height, width),
        av_offset,
    )
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


def listen(path: os.PathLike | str, audio_track: int | None = None) -> Heard:
    """The sound of any audio or video file, and which it is.

    Args:
      path: any file with sound that FFmpeg reads.
      audio_track: number of the sound track, 1 for the first. None: the one that players take.

    Raises:
      AudioError: no such file or track, not sound, or no samples.
    """
    path = pathlib.Path(path)
    with open_media(path, AudioError) as container:
        track = sound_lib.choose_track(container, audio_track, path, AudioError)
        stream = container.streams.audio[track.number - 1]
        shift = timeline_lib.survey_sound(container, stream)
    decoded = _decode_sound(path, track, shift, AudioError)
    segments = decoded.segments
    samples = sound_lib.lay_out(segments, segments[0][0] if segments else 0.0)
    if not len(samples):
        raise AudioError(
            f"{path} holds no sound, or less than 1 ms of it; expected an audio file "
            "(wav, mp3, m4a, mp4, ...)"
        )
    return Heard(samples, track, decoded.inverted)


def as_it_came(source: SoundFile) -> Iterator[np.ndarray]:
    """Yields the sound of a file as it is to be passed on: int16 [n, 1 or 2] at 48 kHz.

    It begins with its first sample, as `listen` does, and is read as it is taken.

    Raises:
      AudioError: no such file or track, or not sound.
    """
    path = pathlib.Path(source.path)
    with open_media(path, AudioError) as container:
        track = sound_lib.choose_track(container, source.audio_track, path, AudioError)
        stream = container.streams.audio[track.number - 1]
        shift = timeline_lib.survey_sound(container, stream)
    with open_media(path, AudioError) as container:
        yield from sound_lib.as_it_came(container, track, shift)


def read_audio(path: os.PathLike | str, audio_track: int | None = None) -> np.ndarray:
    """The sound of any audio or video file -> int16 [n], 16 kHz mono; see `listen`."""
    return listen(path, audio_track).samples


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


def _decode_sound(path, track, shift, error: type[ValueError] = VideoError):
    if track == SILENT:
        return sound_lib.Sound([], track, False, (), 0)
    with open_media(path, error) as container:
        return sound_lib.decode_sound(container, track, shift, path)


def _sound_from(decoded, start, length):
    """int16 [length] of sound from time `start` (s on the file's clock) on."""
    samples = sound_lib.lay_out(decoded.segments, start)[:length]
    return np.pad(samples, (0, length - len(samples)))
