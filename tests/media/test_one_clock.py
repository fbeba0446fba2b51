"""A flash and a click at one instant stay together, whatever the file is like."""

import dataclasses
from fractions import Fraction

import av
import numpy as np
import pytest

from fg3dgs_jax.media import video

SECONDS, CLAP = 3, 1.7
HEIGHT, WIDTH = 48, 64
TICKS = 90_000  # a second, of the files' clocks


@dataclasses.dataclass(frozen=True)
class Case:
    """How a file is made; times in s."""

    times: np.ndarray  # when each picture appears
    suffix: str = "mov"
    codec: str = "pcm_s16le"
    rate: int = 16_000
    layout: str = "mono"
    sound_start: float = 0.0
    video_start: float = 0.0
    turned: bool = False


def _clock(fps, jitter=0.0):
    times = np.arange(round(SECONDS * fps)) / fps
    return times + np.random.default_rng(0).uniform(-jitter, jitter, len(times)) * (times > 0)


STEADY = _clock(25)
CASES = {
    "30 fps, steady": Case(_clock(30)),
    "30 fps, variable rate": Case(_clock(30, 0.012)),
    "phone: 30 fps with dropped pictures": Case(np.delete(_clock(30, 0.005), [7, 20, 21, 70])),
    "25 fps, jittering time stamps": Case(_clock(25, 0.015)),
    "turned by metadata": Case(STEADY, turned=True),
    "stereo 48 kHz": Case(STEADY, rate=48_000, layout="stereo"),
    "stereo 48 kHz, AAC in mp4": Case(STEADY, "mp4", "aac", 48_000, "stereo"),
    "44.1 kHz, mp3 in mkv": Case(STEADY, "mkv", "libmp3lame", 44_100, "stereo"),
    "48 kHz, opus in webm, 30 fps": Case(_clock(30), "webm", "libopus", 48_000, "stereo"),
    "sound starts late": Case(STEADY, sound_start=0.48),
    "sound starts late, 48 kHz, AAC": Case(STEADY, "mp4", "aac", 48_000, "stereo", 0.48),
    "pictures start late": Case(_clock(30, 0.012), video_start=0.35),
}


def _pulse(case):
    """Sound with one click of 1 ms, symmetric about the clap, in one of the channels."""
    time = case.sound_start + np.arange(round((SECONDS - case.sound_start) * case.rate)) / case.rate
    click = 24_000 * np.exp(-(((time - CLAP) / 0.0004) ** 2))
    channels = np.zeros((2 if case.layout == "stereo" else 1, len(time)), np.int16)
    channels[0] = np.rint(click)
    return channels


def _make(path, case):
    """Writes the file; the pictures on screen from the clap on are white for 0.2 s."""
    with av.open(str(path), "w") as container:
        codec = "libvpx" if case.suffix == "webm" else "libx264"
        stream = container.add_stream(codec, rate=30, options={"g": "20"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        base = Fraction(1, TICKS)
        stream.codec_context.time_base = base
        track = container.add_stream(case.codec, rate=case.rate, layout=case.layout)
        begins = case.times[np.searchsorted(case.times, CLAP - case.video_start, side="right") - 1]
        for time in case.times:
            white = begins <= time < begins + 0.2
            picture = np.full((HEIGHT, WIDTH, 3), 235 if white else 20, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = round((time + case.video_start) * TICKS), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        sound = _pulse(case)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(sound.T.reshape(1, -1)), format="s16", layout=case.layout
        )
        frame.sample_rate, frame.time_base = case.rate, Fraction(1, case.rate)
        frame.pts = round(case.sound_start * case.rate)
        resampler = av.AudioResampler(
            track.format.name, case.layout, case.rate, track.frame_size or 1024
        )
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(track.encode(piece))
        container.mux(track.encode(None))
    if case.turned:
        _turn(path)
    return float(begins)


def _turn(path):
    """Writes a quarter turn into the header, as a phone held upright does."""
    data = path.read_bytes()

    def words(*n):
        return b"".join(k.to_bytes(4, "big", signed=True) for k in n)

    plain = words(0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    at = data.index(plain, data.index(b"tkhd"))
    turn = words(0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    path.write_bytes(data[:at] + turn + data[at + 36 :])


@pytest.mark.parametrize("name", CASES)
def test_flash_and_click_stay_together(tmp_path, name):
    case = CASES[name]
    path = tmp_path / f"clap.{case.suffix}"
    begins = _make(path, case)
    clip = video.read_video(path)
    assert (clip.height, clip.width) == ((WIDTH, HEIGHT) if case.turned else (HEIGHT, WIDTH))
    length = SECONDS if len(case.times) > 60 else case.times[-1] + 0.04
    assert abs(clip.num_frames - 25 * length) <= 1
    assert len(clip.samples) == 640 * clip.num_frames
    bright = np.array([frame.mean() for frame in clip.frames()])
    assert len(bright) == clip.num_frames
    flash = int(np.argmax(bright > 120))
    assert abs(flash / 25 - begins) <= 0.0205  # half a frame
    loud = np.abs(clip.samples.astype(np.float64))
    loud[loud < 0.05 * loud.max()] = 0  # a codec's noise
    at = (loud * np.arange(len(loud))).sum() / loud.sum()
    # Containers of compressed sound keep its start to a millisecond, which is 16 samples.
    bound = 1 if case.codec.startswith("pcm") else 16
    assert abs(at - 16_000 * (CLAP - case.video_start)) <= bound


def test_av_offset_moves_the_sound_back_by_its_lateness(tmp_path):
    case = Case(STEADY)
    _make(tmp_path / "clap.mov", case)
    plain = video.read_video(tmp_path / "clap.mov")
    for offset in (0.28, -0.28):
        moved = video.read_video(tmp_path / "clap.mov", av_offset=offset)
        assert len(moved.samples) == len(plain.samples) == 640 * moved.num_frames
        shift = int(np.argmax(plain.samples)) - int(np.argmax(moved.samples))
        assert abs(shift - round(offset * 16_000)) <= 1
        later = plain.moved(offset)
        assert later.av_offset == offset and np.array_equal(later.samples, moved.samples)
        assert np.array_equal(later.moved(0.0).samples, plain.samples)


def test_any_part_of_the_pictures_is_the_same_as_in_the_whole(tmp_path):
    plain = Case(_clock(30))
    webm = dataclasses.replace(plain, suffix="webm", codec="libopus", rate=48_000)
    for case in (Case(_clock(30, 0.012)), dataclasses.replace(plain, suffix="mkv"), webm):
        path = tmp_path / f"clap.{case.suffix}"
        _make(path, case)
        clip = video.read_video(path)
        whole = np.stack(list(clip.frames()))
        for first in (1, 19, 20, 21, 43, clip.num_frames - 1):
            part = np.stack(list(clip.frames(first, 5)))
            np.testing.assert_array_equal(part, whole[first : first + 5])
    assert list(clip.frames(clip.num_frames)) == []


def test_a_window_is_cut_out_and_resized(tmp_path):
    path = tmp_path / "clap.mov"
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    picture = np.repeat((3 * rows + columns)[..., None], 3, 2).astype(np.uint8)
    video.write_video(path.with_suffix(".mp4"), [picture] * 25, np.zeros(16_000, np.int16))
    clip = video.read_video(path.with_suffix(".mp4"))
    whole = next(clip.frames())
    same = clip.cropped((4, 20, 40, 40), 40)
    np.testing.assert_array_equal(next(same.frames()), whole[4:44, 20:60])
    assert (same.height, same.width, same.num_frames) == (40, 40, clip.num_frames)
    half = next(clip.cropped((4, 20, 40, 40), 20).frames())
    mean = whole[4:44, 20:60].reshape(20, 2, 20, 2, 3).mean((1, 3))
    assert half.shape == (20, 20, 3) and np.abs(half - mean).max() <= 1
    with pytest.raises(ValueError, match="leaves the picture"):
        clip.cropped((10, 0, 40, 40), 40)
