"""Media files as cameras, phones and editors write them, and FFmpeg's plain decoding of them."""

import dataclasses
from fractions import Fraction

import av
import numpy as np

HEIGHT, WIDTH, SECONDS = 48, 64, 4
TICKS = 90_000


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a file is made; times in s."""

    suffix: str = "mp4"
    format: str | None = None
    video: str = "libx264"
    pixels: str = "yuv420p"
    options: tuple[tuple[str, str], ...] = (("g", "50"),)
    tags: tuple[tuple[str, int], ...] = ()  # of the codec context: colorspace, color_range...
    size: tuple[int, int] = (HEIGHT, WIDTH)
    fps: float = 25
    audio: str = "aac"
    layout: str = "mono"
    rate: int = 48_000
    seconds: float = SECONDS
    video_start: float = 0.0
    sound_start: float = 0.0
    first_picture: int = 0  # of the drawing, for a file that goes on where another ended
    aspect: Fraction | None = None
    interlaced: bool = False


def picture(number, size=(HEIGHT, WIDTH)):
    """A drawing that tells its number and its way up, uint8 [H, W, 3]."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    red = 40 + 2 * (number % 100) + 0 * rows
    green = 60 + 120 * rows // size[0]
    blue = 200 - 150 * columns // size[1]
    image = np.stack([red, green, blue], -1)
    image[: size[0] // 4, : size[1] // 4] = 235
    return image.astype(np.uint8)


def speech(seconds, rate=48_000, seed=0):
    """Noise with slow syllables, int16 [n]."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).normal(size=len(time))
    noise = np.convolve(noise, np.ones(12) / 12, "same")
    return (9000 * noise * (0.55 + 0.45 * np.sin(2 * np.pi * 3 * time))).astype(np.int16)


def make(path, recipe, sound=None, draw=picture):
    """Writes a file. Sound: int16 [n] or [channels, n], or a list of one for each track."""
    if sound is None:
        sound = speech(recipe.seconds, recipe.rate)
    tracks = sound if isinstance(sound, list) else [sound]
    with av.open(f"file:{path}", "w", format=recipe.format) as container:
        stream = container.add_stream(
            recipe.video,
            rate=Fraction(recipe.fps).limit_denominator(1001),
            options=dict(recipe.options),
        )
        stream.height, stream.width = recipe.size
        stream.pix_fmt = recipe.pixels
        if recipe.aspect:
            stream.codec_context.sample_aspect_ratio = recipe.aspect
        for name, value in recipe.tags:
            setattr(stream.codec_context, name, value)
        inputs = [_Track(container, recipe, samples) for samples in tracks]
        count = round(recipe.seconds * recipe.fps)
        for i in range(count):
            image = draw(i + recipe.first_picture, recipe.size)
            frame = image if isinstance(image, av.VideoFrame) else frame_of(image, recipe)
            frame.pts = round(i + recipe.video_start * recipe.fps)
            frame.time_base = 1 / Fraction(recipe.fps).limit_denominator(1001)
            container.mux(stream.encode(frame))
            for track in inputs:
                track.write((i + 1) / recipe.fps)
        container.mux(stream.encode(None))
        for track in inputs:
            track.finish()
    return path


def frame_of(image, recipe):
    """uint8 RGB [H, W, 3] as a frame of the recipe's pixels, in its matrix."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    tags = dict(recipe.tags)
    matrix = {1: "ITU709", 9: "BT2020"}.get(tags.get("colorspace"), "ITU601")
    ranges = {"dst_color_range": "JPEG"} if tags.get("color_range") == 2 else {}
    frame = frame.reformat(format=recipe.pixels, dst_colorspace=matrix, **ranges)
    for name, value in recipe.tags:
        setattr(frame, name, value)
    return frame


class _Track:
    def __init__(self, container, recipe, samples):
        samples = np.atleast_2d(samples)
        self.packed = np.ascontiguousarray(samples.T.reshape(1, -1))
        self.channels, self.rate, self.done = len(samples), recipe.rate, 0
        self.layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(samples)]
        self.offset = round(recipe.sound_start * self.rate)
        self.container = container
        self.stream = container.add_stream(recipe.audio, rate=recipe.rate, layout=self.layout)
        self.resampler = av.AudioResampler(
            self.stream.format.name, self.layout, recipe.rate, self.stream.frame_size or 1024
        )

    def write(self, until):
        stop = min(round(until * self.rate), self.packed.shape[1] // self.channels)
        if stop > self.done:
            part = self.packed[:, self.done * self.channels : stop * self.channels]
            frame = av.AudioFrame.from_ndarray(part, format="s16", layout=self.layout)
            frame.sample_rate, frame.time_base = self.rate, Fraction(1, self.rate)
            frame.pts, self.done = self.done + self.offset, stop
            self._mux(self.resampler.resample(frame))

    def finish(self):
        if self.done:
            self._mux(self.resampler.resample(None))
        self.container.mux(self.stream.encode(None))

    def _mux(self, frames):
        for frame in frames:
            self.container.mux(self.stream.encode(frame))


def plain_pictures(path, stream=0):
    """FFmpeg's own decoding, from the beginning: (times [N] s, uint8 RGB [N, H, W, 3])."""
    times, images = [], []
    with av.open(f"file:{path}") as container:
        for frame in container.decode(container.streams.video[stream]):
            times.append(frame.time)
            images.append(frame.to_ndarray(format="rgb24"))
    return np.array(times), images


def plain_sound(path, track=0):
    """FFmpeg's own decoding and mix: (time of the first sample s, int16 [n] 16 kHz mono)."""
    start, pieces = None, []
    resampler = av.AudioResampler("s16", "mono", 16_000)
    with av.open(f"file:{path}") as container:
        for frame in container.decode(container.streams.audio[track]):
            start = frame.time if start is None else start
            frame.pts = None
            pieces += [f.to_ndarray().ravel() for f in resampler.resample(frame)]
    pieces += [f.to_ndarray().ravel() for f in resampler.resample(None)]
    return start, np.concatenate(pieces)


def on_the_clock(times, images, num_frames):
    """The picture that is on screen in the middle of each frame of 1/25 s."""
    middles = (np.arange(num_frames) + 0.5) / 25 + 0.002
    which = np.searchsorted(times - times[0], middles, side="right") - 1
    return [images[k] for k in which]
