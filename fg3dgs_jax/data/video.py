"""Video and sound files in and out, through PyAV: always 25 fps RGB and 16 kHz mono on one clock.

Time zero is the start of the first picture. Frame i is the picture that the source shows at i/25 s, sample j is the sound at
j/16000 s; so frame i starts at sample 640 i whatever the source's rates, gaps and stream offsets were.
"""

import contextlib
import dataclasses
import pathlib
import wave
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np

FPS = 25
SAMPLE_RATE = 16_000
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
_CLOCK_SLACK = 0.002  # s; containers round time stamps to a millisecond
_GAP = 0.06  # s; sound time stamps off by more than this are a hole or a jump, not jitter
_AAC_RATE = 48_000  # AAC delays by 1024 samples; players that ignore edit lists are then off by 21 ms only


class VideoError(ValueError):
    """A video that cannot be used; one line that says what was found and what was expected."""


class AudioError(ValueError):
    """A sound file that cannot be used; one line that says what was found and what was expected."""


class StreamInfo(NamedTuple):
    type: str  # "video" or "audio"
    codec: str
    rate: float  # frames or samples a second
    seconds: float | None  # where the container says


@dataclasses.dataclass(frozen=True)
class Video:
    """An opened video. Pictures are decoded anew at every call of `frames`, one at a time."""

    path: pathlib.Path
    num_frames: int  # T
    height: int
    width: int
    samples: np.ndarray  # int16 [T * 640], 16 kHz mono, silence where the source has no sound
    source_fps: float
    start: float  # s on the source's clock
    turns: int  # quarter turns anticlockwise that put the picture upright

    def frames(self) -> Iterator[np.ndarray]:
        """Yields exactly T pictures, uint8 [H, W, 3] RGB."""
        shown, shown_array, count = None, None, 0
        with _open(self.path, VideoError) as container:
            for time, frame in _decode_pictures(container, self.source_fps):
                # The pictures due before this one appears still show the one before it.
                while shown is not None and count < self.num_frames and count / FPS < time - self.start - _CLOCK_SLACK:
                    shown_array = self._upright(shown) if shown_array is None else shown_array
                    yield shown_array
                    count += 1
                shown, shown_array = frame, None
                if count >= self.num_frames:
                    break
        while count < self.num_frames:
            shown_array = self._upright(shown) if shown_array is None else shown_array
            yield shown_array
            count += 1

    def read_into(self, out) -> None:
        """Fills a uint8 [T, H, W, 3] array or memory map."""
        if out.shape != (self.num_frames, self.height, self.width, 3) or out.dtype != np.uint8:
            raise ValueError(f"out is {out.dtype} {out.shape}; expected uint8 {(self.num_frames, self.height, self.width, 3)}")
        for i, frame in enumerate(self.frames()):
            out[i] = frame

    def _upright(self, frame):
        size = (self.width, self.height) if self.turns % 2 == 0 else (self.height, self.width)
        image = frame.to_ndarray(format="rgb24", width=size[0], height=size[1])
        return np.ascontiguousarray(np.rot90(image, self.turns))


def read_video(path, *, min_frames: int = FPS, max_seconds: float | None = None) -> Video:
    """Opens a video with sound, re-timed to 25 fps and 16 kHz mono (see the top of this file).

    Raises:
      VideoError: no such file, not a video, no pictures, no sound, or fewer than `min_frames` frames.
    """
    path = pathlib.Path(path)
    with _open(path, VideoError) as container:
        stream = _picture_stream(container, path)
        fps = float(stream.average_rate or stream.guessed_rate or FPS)
        try:
            start, first = next(_decode_pictures(container, fps))
        except (StopIteration, av.FFmpegError):
            raise VideoError(f"{path} holds a video stream without one readable picture: expected a video file") from None
        ratio = float(stream.sample_aspect_ratio or 1)
        turns = round(first.rotation / 90) % 4
    size = (first.height, round(first.width * ratio))
    height, width = size if turns % 2 == 0 else size[::-1]
    num_frames = round((_picture_end(path, fps) - start) * FPS)
    if max_seconds is not None:
        num_frames = min(num_frames, int(max_seconds * FPS))
    samples = _sound_from(path, start, num_frames * SAMPLES_PER_FRAME)
    if num_frames < min_frames:
        raise VideoError(
            f"{path} is {num_frames} frames long at {FPS} fps ({num_frames / FPS:.2f} s); expected at least {min_frames} "
            f"({min_frames / FPS:g} s): use a longer video"
        )
    return Video(path, num_frames, height, width, samples, fps, start, turns)


def read_audio(path) -> np.ndarray:
    """The sound of any audio or video file -> int16 [n], 16 kHz mono.

    Raises:
      AudioError: no such file, not sound, or no samples.
    """
    path = pathlib.Path(path)
    with _open(path, AudioError) as container:
        if not container.streams.audio:
            raise AudioError(f"{path} has no sound; expected an audio file, or a video with sound")
        segments = _decode_sound(container)
    samples = _lay_out(segments, segments[0][0] if segments else 0.0)
    if not len(samples):
        raise AudioError(f"{path} holds no samples of sound; expected an audio file (wav, mp3, m4a, mp4, ...)")
    return samples


def write_video(path, frames, samples=None, *, sample_rate=SAMPLE_RATE, fps=FPS, crf=18) -> int:
    """Writes pictures and their sound as H.264 (yuv420p) + AAC in mp4; the file appears whole or not at all.

    Args:
      frames: iterable of uint8 [H, W, 3], taken one at a time; odd sizes gain an edge row or column.
      samples: int16 [n] mono at `sample_rate`; what is longer than the pictures is left out.
      crf: x264's constant quality, 0 (lossless) to 51; 18 looks like the original.

    Returns:
      the number of frames written.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        with av.open(str(part), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            count = _encode(container, iter(frames), samples, sample_rate, Fraction(fps).limit_denominator(1001), crf)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return count


def write_wav(path, samples, sample_rate: int = SAMPLE_RATE) -> None:
    """int16 [n] mono -> wav; the file appears whole or not at all."""
    path = pathlib.Path(path)
    samples = np.asarray(samples)
    if samples.ndim != 1 or samples.dtype != np.int16:
        raise ValueError(f"samples are {samples.dtype} {samples.shape}; expected int16 [n]")
    part = path.with_name(f".{path.name}.part")
    try:
        with wave.open(str(part), "wb") as file:
            file.setparams((1, 2, sample_rate, 0, "NONE", "not compressed"))
            file.writeframes(samples.astype("<i2").tobytes())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_wav(path) -> np.ndarray:
    """A wav that is 16 kHz mono int16 already (as `write_wav` makes them) -> int16 [n], bit for bit."""
    try:
        with wave.open(str(path), "rb") as file:
            form = (file.getframerate(), file.getnchannels(), 8 * file.getsampwidth())
            data = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise AudioError(f"{path} is not a readable wav file ({error}); expected 16 kHz mono int16") from None
    if form != (SAMPLE_RATE, 1, 16):
        raise AudioError(f"{path} is {form[0]} Hz, {form[1]} channels, {form[2]} bits; expected 16000 Hz, 1, 16: use read_audio")
    return np.frombuffer(data, "<i2").astype(np.int16)


def probe_streams(path) -> list[StreamInfo]:
    """What is inside a media file, in the file's order."""
    with _open(path, VideoError) as container:
        return [
            StreamInfo(
                s.type,
                s.codec_context.name if s.codec_context else "unknown",
                float((s.average_rate if s.type == "video" else s.rate) or 0),
                float(s.duration * s.time_base) if s.duration is not None else None,
            )
            for s in container.streams
            if s.type in ("video", "audio")
        ]


# Reading


@contextlib.contextmanager
def _open(path, error):
    path = pathlib.Path(path)
    wanted = "a video file" if error is VideoError else "an audio file"
    if not path.is_file():
        raise error(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}; expected {wanted}")
    try:
        container = av.open(str(path))
    except (av.FFmpegError, UnicodeError) as cause:
        raise error(f"{path} cannot be read as media ({type(cause).__name__}); expected {wanted} (mp4, mov, wav, ...)") from None
    with container:
        yield container


def _picture_stream(container, path):
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        raise VideoError(f"{path} has no video stream; expected a video with sound")
    return streams[0]


def _decode_pictures(container, fps):
    """Yields (time in s on the file's clock, frame) in the order they are shown; skips what cannot be decoded."""
    stream = _picture_stream(container, container.name)
    stream.thread_type = "AUTO"
    time = -1.0 / fps
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.InvalidDataError:
            continue  # a damaged picture: the one before it stays on screen
        for frame in frames:
            time = frame.time if frame.time is not None else time + 1.0 / fps
            yield time, frame


def _picture_end(path, fps):
    """Time (s on the file's clock) at which the last picture leaves the screen; from the packets, nothing is decoded."""
    last, length, count = None, 0.0, 0
    with _open(path, VideoError) as container:
        stream = _picture_stream(container, path)
        for packet in container.demux(stream):
            if packet.size == 0 or packet.is_discard:
                continue
            count += 1
            if packet.pts is not None and (last is None or packet.pts * stream.time_base > last):
                last = packet.pts * stream.time_base
                length = packet.duration * stream.time_base if packet.duration else 0
    return float(last) + (float(length) or 1.0 / fps) if last is not None else count / fps


def _sound_from(path, start, length):
    """int16 [length] of sound from time `start` (s on the file's clock) on."""
    with _open(path, VideoError) as container:
        segments = _decode_sound(container) if container.streams.audio else []
    if not segments:
        raise VideoError(f"{path} has no sound; expected a video in which the person is heard speaking")
    samples = _lay_out(segments, start)[:length]
    return np.pad(samples, (0, length - len(samples)))


def _decode_sound(container):
    """[(start s, int16 [n] at 16 kHz mono)]: one piece, or more where the time stamps jump."""
    segments, pieces, resampler, begin, due = [], [], None, 0.0, None

    def finish():
        if resampler is not None:
            pieces.extend(f.to_ndarray().reshape(-1) for f in resampler.resample(None))
        if pieces:
            segments.append((begin, np.concatenate(pieces)))

    for packet in container.demux(container.streams.audio[0]):
        try:
            frames = packet.decode()
        except av.InvalidDataError:
            continue  # damaged sound becomes a hole, filled with silence
        for frame in frames:
            time = frame.time if frame.time is not None else (due or 0.0)
            if due is None or abs(time - due) > _GAP:
                finish()
                pieces, begin = [], time
                resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
                due = time
            due += frame.samples / frame.sample_rate
            frame.pts = None
            pieces.extend(f.to_ndarray().reshape(-1) for f in resampler.resample(frame))
    finish()
    return segments


def _lay_out(segments, start):
    """Pieces at their times -> int16 [n] from `start` on; silence in the holes, what lies before `start` is cut."""
    offsets = [round((time - start) * SAMPLE_RATE) for time, _ in segments]
    length = max([o + len(s) for o, (_, s) in zip(offsets, segments, strict=True)], default=0)
    out = np.zeros(max(length, 0), np.int16)
    for offset, (_, samples) in zip(offsets, segments, strict=True):
        kept = samples[max(0, -offset) :]
        out[max(0, offset) : max(0, offset) + len(kept)] = kept
    return out


# Writing


def _encode(container, frames, samples, sample_rate, fps, crf):
    first = next(frames, None)
    if first is None:
        raise VideoError("no frames to write; expected at least one uint8 [H, W, 3]")
    height, width = first.shape[:2]
    stream = container.add_stream("libx264", rate=fps, options={"crf": str(crf)})
    stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
    # Say which matrix was used: without it players guess, and by the picture's size.
    stream.codec_context.colorspace, stream.codec_context.color_range = 6, 1  # SMPTE 170M (BT.601), studio range
    stream.codec_context.color_primaries, stream.codec_context.color_trc = 6, 6
    sound = _SoundTrack(container, samples, sample_rate) if samples is not None else None
    count, frame = 0, first
    while frame is not None:
        if frame.shape != first.shape or frame.dtype != np.uint8 or frame.shape[2:] != (3,):
            raise VideoError(f"frame {count} is {frame.dtype} {frame.shape}; expected uint8 [{height}, {width}, 3] as frame 0")
        padded = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace="ITU601")
        picture.pts, picture.time_base = count, 1 / fps
        container.mux(stream.encode(picture))
        count += 1
        if sound:
            sound.write_until(count / fps)
        frame = next(frames, None)
    container.mux(stream.encode(None))
    if sound:
        sound.finish()
    return count


class _SoundTrack:
    """The AAC stream, fed up to the time of the pictures so that nothing piles up in the muxer."""

    def __init__(self, container, samples, sample_rate):
        self.samples = np.asarray(samples)
        if self.samples.ndim != 1 or self.samples.dtype != np.int16:
            raise AudioError(f"samples are {self.samples.dtype} {self.samples.shape}; expected int16 [n]")
        self.container, self.rate, self.done = container, sample_rate, 0
        self.stream = container.add_stream("aac", rate=_AAC_RATE, layout="mono", bit_rate=128_000)
        self.resampler = av.AudioResampler(format="fltp", layout="mono", rate=_AAC_RATE, frame_size=1024)

    def write_until(self, seconds):
        stop = min(int(seconds * self.rate), len(self.samples))
        if stop > self.done:
            frame = av.AudioFrame.from_ndarray(self.samples[None, self.done : stop], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = self.rate, self.done, Fraction(1, self.rate)
            self.done = stop
            self._mux(self.resampler.resample(frame))

    def finish(self):
        if self.done:
            self._mux(self.resampler.resample(None))
        self.container.mux(self.stream.encode(None))

    def _mux(self, frames):
        for frame in frames:
            self.container.mux(self.stream.encode(frame))
