"""Pictures and their sound -> H.264 + AAC in mp4, through PyAV, streaming."""

import os
import pathlib
from collections.abc import Iterable
from fractions import Fraction

import av
import numpy as np

from fg3dgs_jax.media.clock import FPS, SAMPLE_RATE
from fg3dgs_jax.media.container import AudioError, VideoError
from fg3dgs_jax.media.whole_files import whole

# AAC delays by 1024 samples: at 48 kHz players that ignore edit lists are off by 21 ms only.
_AAC_RATE = 48_000


def write_video(
    path: os.PathLike | str,
    frames: Iterable[np.ndarray],
    samples: np.ndarray | None = None,
    *,
    sample_rate: int = SAMPLE_RATE,
    fps: float = FPS,
    crf: int = 18,
) -> int:
    """Writes pictures and sound as H.264 (yuv420p) + AAC in mp4; whole or not at all.

    Args:
      path: of the mp4. Its folder is made if need be.
      frames: uint8 [H, W, 3], taken one at a time; odd sizes gain an edge row or column.
      samples: int16 [n] mono; what is longer than the pictures is left out.
      sample_rate: of the samples, Hz.
      fps: frames a second.
      crf: x264's constant quality, 0 (lossless) to 51; 18 looks like the original.

    Returns:
      the number of frames written.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"movflags": "+faststart"}
    with whole(path) as part, av.open(str(part), "w", format="mp4", options=options) as container:
        return _encode(container, iter(frames), samples, sample_rate, fps, crf)


def _encode(container, frames, samples, sample_rate, fps, crf):
    fps = Fraction(fps).limit_denominator(1001)
    first = next(frames, None)
    if first is None:
        raise VideoError("no frames to write; expected at least one uint8 [H, W, 3]")
    height, width = first.shape[:2]
    stream = container.add_stream("libx264", rate=fps, options={"crf": str(crf)})
    stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
    # Say which matrix was used: without it players guess, and by the picture's size.
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = 6  # SMPTE 170M (BT.601)
    context.color_range = 1  # studio range
    sound = _SoundTrack(container, samples, sample_rate) if samples is not None else None
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
    """The AAC stream, fed up to the time of the pictures so that nothing piles up in the muxer."""

    def __init__(self, container, samples, sample_rate):
        self.samples = np.asarray(samples)
        if self.samples.ndim != 1 or self.samples.dtype != np.int16:
            raise AudioError(
                f"samples are {self.samples.dtype} {self.samples.shape}; expected int16 [n]"
            )
        self.container, self.rate, self.done = container, sample_rate, 0
        self.stream = container.add_stream("aac", rate=_AAC_RATE, layout="mono", bit_rate=128_000)
        self.resampler = av.AudioResampler(
            format="fltp", layout="mono", rate=_AAC_RATE, frame_size=1024
        )

    def write_until(self, seconds):
        stop = min(int(seconds * self.rate), len(self.samples))
        if stop > self.done:
            frame = av.AudioFrame.from_ndarray(
                self.samples[None, self.done : stop], format="s16", layout="mono"
            )
            frame.sample_rate, frame.time_base = self.rate, Fraction(1, self.rate)
            frame.pts = self.done
            self.done = stop
            self._mux(self.resampler.resample(frame))

    def finish(self):
        if self.done:
            self._mux(self.resampler.resample(None))
        self.container.mux(self.stream.encode(None))

    def _mux(self, frames):
        for frame in frames:
            self.container.mux(self.stream.encode(frame))
