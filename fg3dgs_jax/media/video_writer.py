"""Pictures and their sound -> H.264 + AAC, or VP9 + Opus in webm, through PyAV, streaming."""

import os
import pathlib
from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from fg3dgs_jax.media import av
from fg3dgs_jax.media.clock import FPS, SAMPLE_RATE
from fg3dgs_jax.media.container import AudioError, VideoError, local
from fg3dgs_jax.media.whole_files import whole

# AAC delays by 1024 samples: at 48 kHz players that ignore edit lists are off by 21 ms only.
_SOUND_RATE = 48_000
_BIT_RATES = {"mono": 128_000, "stereo": 192_000}


class Kind(NamedTuple):
    """What a video file of one suffix holds."""

    format: str  # FFmpeg's name of the container
    pictures: str  # encoder
    sound: str  # encoder
    options: dict[str, str]  # of the container
    encoding: dict[str, str]  # of the pictures


_H264 = ("libx264", "aac")
_VP9 = {"deadline": "good", "cpu-used": "4", "row-mt": "1"}
KINDS = {
    ".mp4": Kind("mp4", *_H264, {"movflags": "+faststart"}, {}),
    ".mov": Kind("mov", *_H264, {"movflags": "+faststart"}, {}),
    ".mkv": Kind("matroska", *_H264, {}, {}),
    ".webm": Kind("webm", "libvpx-vp9", "libopus", {}, _VP9),
}


def kind_of(path: os.PathLike | str) -> Kind:
    """What a video file of this name is to hold.

    Raises:
      VideoError: a suffix that is none of `KINDS`, or encoders that PyAV was built without.
    """
    path = pathlib.Path(path)
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise VideoError(
            f"{path} ends in {path.suffix or 'no suffix'!r}; expected a name that ends in "
            f"{', '.join(KINDS)}"
        )
    for codec in (kind.pictures, kind.sound):
        if codec not in av.codecs_available:
            raise VideoError(
                f"{path}: the installed PyAV has no encoder {codec}; choose a name with .mp4"
            )
    return kind


def write_video(
    path: os.PathLike | str,
    frames: Iterable[np.ndarray],
    samples: np.ndarray | Iterable[np.ndarray] | None = None,
    *,
    sample_rate: int = SAMPLE_RATE,
    fps: float = FPS,
    crf: int = 18,
    comment: str = "",
) -> int:
    """Writes pictures and sound as H.264 (yuv420p) + AAC; whole or not at all.

    Args:
      path: of the file, .mp4, .mov or .mkv. With .webm it holds VP9 + Opus. Its folder is made if
        need be.
      frames: uint8 [H, W, 3], taken one at a time; odd sizes gain an edge row or column.
      samples: int16 [n] mono or [n, channels], or such blocks one after the other, taken as they
        are needed. What is longer than the pictures is left out.
      sample_rate: of the samples, Hz.
      fps: frames a second.
      crf: x264's constant quality, 0 (lossless) to 51; 18 looks like the original. VP9 has a
        scale of its own, on which it stands for about the same.
      comment: what the file's metadata say of it.

    Returns:
      the number of frames written.

    Raises:
      VideoError: no frames, frames of different sizes, or a name that is none of `KINDS`.
    """
    path = pathlib.Path(path)
    kind = kind_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        whole(path) as part,
        av.open(local(part), "w", format=kind.format, options=kind.options) as container,
    ):
        sound = None if samples is None else (samples, sample_rate)
        if comment:
            container.metadata["comment"] = comment
        return _encode(container, kind, iter(frames), sound, fps, crf)


def _encode(container, kind, frames, sound, fps, crf):
    fps = Fraction(fps).limit_denominator(1001)
    first = next(frames, None)
    if first is None:
        raise VideoError("no frames to write; expected at least one uint8 [H, W, 3]")
    height, width = first.shape[:2]
    options = {"crf": str(crf), **kind.encoding}
    stream = container.add_stream(kind.pictures, rate=fps, options=options)
    stream.bit_rate = 0  # the quality decides
    stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
    # Say which matrix was used: without it players guess, and by the picture's size.
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = 6  # SMPTE 170M (BT.601)
    context.color_range = 1  # studio range
    sound = _SoundTrack(container, kind.sound, *sound) if sound is not None else None
    count, frame = 0, first
    while frame is not None:
        if frame.shape != first.shape or frame.dtype != np.uint8 or frame.shape[2:] != (3,):
            raise VideoError(
                f"frame {count} is {frame.dtype} {frame.shape}; "
                f"expected uint8 [{height}, {width}, 3] as frame 0"
            )
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
    """The stream of sound, fed up to the time of the pictures: nothing piles up in the muxer."""

    def __init__(self, container, codec, samples, sample_rate):
        self.blocks = iter([samples] if isinstance(samples, np.ndarray) else samples)
        self.block, self.layout = np.zeros((0, 1), np.int16), "mono"
        self._next_block()
        self.layout = "stereo" if self.block.shape[1] == 2 else "mono"
        self.container, self.rate, self.done = container, sample_rate, 0
        self.stream = container.add_stream(
            codec, rate=_SOUND_RATE, layout=self.layout, bit_rate=_BIT_RATES[self.layout]
        )
        self.resampler = av.AudioResampler(
            format="fltp" if codec == "aac" else "s16",
            layout=self.layout,
            rate=_SOUND_RATE,
            frame_size=1024 if codec == "aac" else 960,
        )

    def _next_block(self):
        """Whether there is another block; empty ones are passed over."""
        for block in self.blocks:
            samples = np.asarray(block)
            if samples.ndim == 1:
                samples = samples[:, None]
            if samples.ndim != 2 or samples.dtype != np.int16 or samples.shape[1] not in (1, 2):
                raise AudioError(
                    f"samples are {samples.dtype} {np.shape(block)}; expected int16 [n] or [n, 2]"
                )
            self.block = samples
            if len(samples):
                return True
        return False

    def write_until(self, seconds):
        stop = int(seconds * self.rate)
        while self.done < stop:
            if not len(self.block) and not self._next_block():
                return
            part, self.block = np.split(self.block, [stop - self.done])
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(part.reshape(1, -1)), format="s16", layout=self.layout
            )
            frame.sample_rate, frame.time_base = self.rate, Fraction(1, self.rate)
            frame.pts = self.done
            self.done += len(part)
            self._mux(self.resampler.resample(frame))

    def finish(self):
        if self.done:
            self._mux(self.resampler.resample(None))
        self.container.mux(self.stream.encode(None))

    def _mux(self, frames):
        for frame in frames:
            self.container.mux(self.stream.encode(frame))
