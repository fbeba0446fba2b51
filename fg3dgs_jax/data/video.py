"""Video and sound files in and out, through PyAV: always 25 fps RGB and 16 kHz mono on one clock.

Time zero is the start of the first picture. Frame i is the picture that the source shows at i/25 s,
sample j is the sound at j/16000 s; so frame i starts at sample 640 i whatever the source's rates,
gaps and stream offsets were.
"""

import dataclasses
import pathlib
import wave
from collections.abc import Iterator

import av
import numpy as np

from fg3dgs_jax.data.dataset import FPS, SAMPLE_RATE
from fg3dgs_jax.data.media import (
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
)
from fg3dgs_jax.data.video_writer import write_video

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

SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
_CLOCK_SLACK = 0.002  # s; containers round time stamps to a millisecond


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
        """Yields exactly T pictures, uint8 [H, W, 3] RGB; a repeated one is the same array."""
        shown, shown_array, count = None, None, 0
        with open_media(self.path, VideoError) as container:
            for time, frame in decode_pictures(container, self.source_fps):
                # The pictures due before this one appears still show the one before it.
                while (
                    shown is not None
                    and count < self.num_frames
                    and count / FPS < time - self.start - _CLOCK_SLACK
                ):
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
            raise ValueError(
                f"out is {out.dtype} {out.shape}; expected uint8 "
                f"{(self.num_frames, self.height, self.width, 3)}"
            )
        for i, frame in enumerate(self.frames()):
            out[i] = frame

    def _upright(self, frame):
        size = (self.width, self.height) if self.turns % 2 == 0 else (self.height, self.width)
        image = frame.to_ndarray(format="rgb24", width=size[0], height=size[1])
        return np.ascontiguousarray(np.rot90(image, self.turns))


def read_video(path, *, min_frames: int = FPS, max_seconds: float | None = None) -> Video:
    """Opens a video with sound, re-timed to 25 fps and 16 kHz mono (see the top of this file).

    Raises:
      VideoError: no such file, not a video, no pictures, no sound, or fewer than `min_frames`
        frames.
    """
    path = pathlib.Path(path)
    with open_media(path, VideoError) as container:
        stream = picture_stream(container, path)
        fps = float(stream.average_rate or stream.guessed_rate or FPS)
        try:
            start, first = next(decode_pictures(container, fps))
        except (StopIteration, av.FFmpegError):
            raise VideoError(
                f"{path} holds a video stream without one readable picture: expected a video file"
            ) from None
        ratio = float(stream.sample_aspect_ratio or 1)
        turns = round(first.rotation / 90) % 4
    size = (first.height, round(first.width * ratio))
    height, width = size if turns % 2 == 0 else size[::-1]
    num_frames = round((picture_end(path, fps) - start) * FPS)
    if max_seconds is not None:
        num_frames = min(num_frames, int(max_seconds * FPS))
    samples = _sound_from(path, start, num_frames * SAMPLES_PER_FRAME)
    if num_frames < min_frames:
        raise VideoError(
            f"{path} is {num_frames} frames long at {FPS} fps ({num_frames / FPS:.2f} s); "
            f"expected at least {min_frames} ({min_frames / FPS:g} s): use a longer video"
        )
    return Video(path, num_frames, height, width, samples, fps, start, turns)


def read_audio(path) -> np.ndarray:
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
