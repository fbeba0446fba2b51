"""Odd clips made here with PyAV: clocks, holes, rotation; what is refused; writing."""

import wave
from fractions import Fraction

import av
import numpy as np
import pytest

from fg3dgs_jax.media import video

SIZE = 64


def _picture(value, height=SIZE, width=SIZE):
    return np.full((height, width, 3), value, np.uint8)


def _levels(times):
    """Grey levels that tell the time; two a frame survive H.264."""
    return [int(20 + 50 * t) for t in times]


def _value_at(image):
    return float(image[8:-8, 8:-8].mean())


def _make(path, times, *, sound=None, sound_start=0.0, rate=16_000, end=None, hole=range(0)):
    """Pictures shown from `times` (s) on, grey by time, and `sound` from `sound_start` on.

    Blocks of 1000 samples that begin inside `hole` are left out.
    """
    with av.open(str(path), "w") as container:
        base = Fraction(1, 12_000)
        stream = container.add_stream("libx264", rate=25, options={"crf": "5"})
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = base
        # Uncompressed sound in mov has no encoder delay: what is read back is what was written.
        track = None
        if sound is not None:
            track = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        ends = [*times[1:], end or times[-1] + (times[-1] - times[-2] if len(times) > 1 else 0.04)]
        for level, time, stop in zip(_levels(times), times, ends, strict=True):
            frame = av.VideoFrame.from_ndarray(_picture(level), format="rgb24").reformat(
                format="yuv420p"
            )
            frame.pts, frame.time_base = round(time * 12_000), base
            frame.duration = round((stop - time) * 12_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if track is not None:
            for begin in (b for b in range(0, len(sound), 1000) if b not in hole):
                frame = av.AudioFrame.from_ndarray(
                    sound[None, begin : begin + 1000], format="s16", layout="mono"
                )
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = begin + round(sound_start * rate)
                container.mux(track.encode(frame))
            container.mux(track.encode(None))
    return path


def _noise(seconds, rate=16_000):
    return (np.random.default_rng(0).normal(size=int(seconds * rate)) * 4000).astype(np.int16)


def _assert_shows(clip, times, tolerance=1.6):
    """Frame i is the picture that is on screen in its middle, at (i + 0.5)/25 s."""
    times = np.asarray(times) - times[0]
    for i, frame in enumerate(clip.frames()):
        shown = np.searchsorted(times, (i + 0.5) / 25 + 0.002, side="right") - 1
        expected = _levels([times[shown]])[0]
        assert abs(_value_at(frame) - expected) <= tolerance, f"frame {i}"
    assert i == clip.num_frames - 1


@pytest.mark.parametrize("fps", [25, 30, 24, 50, 29.97])
def test_any_rate_becomes_25_frames_and_16000_samples_a_second(tmp_path, fps):
    times = np.arange(round(2 * fps)) / fps
    sound = _noise(2)
    clip = video.read_video(_make(tmp_path / "a.mov", times, sound=sound))
    assert clip.num_frames == 50
    assert clip.samples.shape == (50 * 640,) and clip.samples.dtype == np.int16
    np.testing.assert_array_equal(clip.samples, sound)
    _assert_shows(clip, times)


def test_variable_rate_holds_each_picture_until_the_next(tmp_path):
    times = np.array([0, 0.04, 0.30, 0.31, 0.33, 0.70, 0.90, 1.5])
    clip = video.read_video(_make(tmp_path / "a.mov", times, sound=_noise(2), end=2.0))
    _assert_shows(clip, times)
    assert clip.num_frames >= 38


@pytest.mark.parametrize("video_start, sound_start", [(0.0, 0.2), (0.2, 0.0), (0.5, 0.5)])
def test_stream_offsets_are_laid_on_one_clock(tmp_path, video_start, sound_start):
    times = video_start + np.arange(50) / 25
    sound = _noise(2)
    clip = video.read_video(_make(tmp_path / "a.mov", times, sound=sound, sound_start=sound_start))
    shift = round((sound_start - video_start) * 16_000)
    expected = np.zeros(50 * 640, np.int16)
    kept = sound[max(0, -shift) :][: len(expected) - max(0, shift)]
    expected[max(0, shift) : max(0, shift) + len(kept)] = kept
    assert clip.num_frames == 50
    np.testing.assert_array_equal(clip.samples, expected)


def test_other_sample_rates_keep_their_place_in_time(tmp_path):
    sound = np.zeros(88_200, np.int16)
    sound[44_100 : 44_100 + 40] = 20_000  # a click of 1 ms at 1 s
    clip = video.read_video(_make(tmp_path / "a.mov", np.arange(50) / 25, sound=sound, rate=44_100))
    loud = np.abs(clip.samples.astype(float))
    assert abs((loud * np.arange(len(loud))).sum() / loud.sum() - (16_000 + 7)) < 3


def test_a_hole_in_the_sound_is_silence_and_does_not_shift_the_rest(tmp_path):
    sound = _noise(2)
    path = _make(tmp_path / "a.mkv", np.arange(50) / 25, sound=sound, hole=range(8000, 16_000))
    expected = sound.copy()
    expected[8000:16_000] = 0
    samples = video.read_video(path).samples
    np.testing.assert_array_equal(samples, expected)


def test_rotation_in_the_header_is_applied(tmp_path):
    path = tmp_path / "a.mp4"
    image = _picture(30, 48, 64)
    image[:, :32] = 220  # the left half is bright
    video.write_video(path, [image] * 25, _noise(1))
    data = path.read_bytes()
    identity = b"".join(
        n.to_bytes(4, "big") for n in (0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    )
    quarter = b"".join(
        n.to_bytes(4, "big", signed=True) for n in (0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    )
    at = data.index(identity, data.index(b"tkhd"))
    # What a phone held upright writes: turn clockwise when showing.
    path.write_bytes(data[:at] + quarter + data[at + 36 :])
    clip = video.read_video(path)
    assert (clip.height, clip.width) == (64, 48)
    frame = next(clip.frames())
    assert frame.shape == (64, 48, 3)
    assert frame[:28].mean() > 200 and frame[36:].mean() < 60  # left turned clockwise is top


def test_written_video_reads_back_with_colours_sound_and_time_in_place(tmp_path):
    rows, cols = np.mgrid[0:65, 0:63]
    clean = [
        np.stack([rows * 3 + i, cols * 3, 255 - rows * 2 - i], -1).clip(0, 255).astype(np.uint8)
        for i in range(30)
    ]
    sound = np.zeros(30 * 640, np.int16)
    sound[9000:9200] = 12_000
    path = tmp_path / "new" / "a.mp4"
    assert video.write_video(path, iter(clean), sound) == 30
    assert [p.name for p in path.parent.iterdir()] == ["a.mp4"]
    streams = {s.type: s for s in video.probe_streams(path)}
    assert streams["video"].codec == "h264" and streams["audio"].codec == "aac"
    assert streams["video"].rate == 25 and abs(streams["video"].seconds - 1.2) < 1e-3
    clip = video.read_video(path)
    assert (clip.num_frames, clip.height, clip.width) == (30, 66, 64)
    back = np.stack(list(clip.frames()))
    assert back.shape == (30, 66, 64, 3)
    for i in (0, 11, 29):
        assert np.abs(back[i, :65, :63].astype(int) - clean[i]).mean() < 3
    loud = np.abs(clip.samples.astype(float))
    assert abs((loud * np.arange(len(loud))).sum() / loud.sum() - 9100) < 16  # 1 ms


def test_sound_longer_than_the_pictures_is_cut_and_none_is_allowed(tmp_path):
    video.write_video(tmp_path / "a.mp4", [_picture(9)] * 25, _noise(3))
    assert all(s.seconds < 1.1 for s in video.probe_streams(tmp_path / "a.mp4"))
    video.write_video(tmp_path / "b.mp4", [_picture(9)] * 2)
    assert [s.type for s in video.probe_streams(tmp_path / "b.mp4")] == ["video"]


def test_a_write_that_fails_leaves_nothing_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")

    def frames():
        yield _picture(1)
        raise RuntimeError("drawing failed")

    with pytest.raises(RuntimeError, match="drawing failed"):
        video.write_video(path, frames(), _noise(1))
    with pytest.raises(video.VideoError, match="no frames"):
        video.write_video(path, [])
    with pytest.raises(video.VideoError, match="frame 1"):
        video.write_video(path, [_picture(1), _picture(1, 32)])
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def _broken_files(folder):
    text = folder / "text.mp4"
    text.write_text("this is not a video\n" * 50)
    empty = folder / "empty.mp4"
    empty.write_bytes(b"")
    silent = _make(folder / "silent.mov", np.arange(50) / 25)
    short = _make(folder / "short.mov", np.arange(3) / 25, sound=_noise(1))
    sound = folder / "sound.mp4"
    video.write_wav(folder / "sound.wav", _noise(1))
    sound.write_bytes((folder / "sound.wav").read_bytes())
    cut = folder / "cut.mp4"
    video.write_video(folder / "whole.mp4", [_picture(1)] * 30, _noise(2))
    cut.write_bytes((folder / "whole.mp4").read_bytes()[:200])
    return {
        folder / "absent.mp4": "does not exist",
        folder: "is a folder",
        text: "cannot be read as media",
        empty: "cannot be read as media",
        cut: "",
        silent: "has no sound",
        short: "3 frames long",
        sound: "no video stream",
    }


def test_unusable_videos_are_refused_in_one_line_that_names_the_file(tmp_path):
    for path, reason in _broken_files(tmp_path).items():
        with pytest.raises(video.VideoError) as error:
            video.read_video(path)
        message = str(error.value)
        assert (
            str(path) in message
            and reason in message
            and "expected" in message
            and "\n" not in message
        )


def test_a_download_that_broke_off_is_read_up_to_there_or_refused(tmp_path):
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    noise = np.random.default_rng(0).integers(0, 255, (100, SIZE, SIZE, 3), np.uint8)
    video.write_video(whole, noise, _noise(4))
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) * 6 // 10])
    clip = video.read_video(cut)
    assert 40 < clip.num_frames < 75 and len(list(clip.frames())) == clip.num_frames
    cut.write_bytes(data[: len(data) // 10])
    with pytest.raises(video.VideoError):
        video.read_video(cut)


def test_limits_are_arguments(tmp_path):
    path = _make(tmp_path / "a.mov", np.arange(50) / 25, sound=_noise(2))
    with pytest.raises(video.VideoError, match="at least 51"):
        video.read_video(path, min_frames=51)
    clip = video.read_video(path, max_seconds=1.2)
    assert (
        clip.num_frames == 30 and len(list(clip.frames())) == 30 and len(clip.samples) == 30 * 640
    )


@pytest.mark.parametrize(
    "part, first, count",
    [
        ({"start": 0.4}, 10, 40),
        ({"start": 0.52, "end": 1.2}, 13, 17),
        ({"end": 9.0}, 0, 50),
        ({"start": 0.4, "max_seconds": 0.6}, 10, 15),
    ],
)
def test_a_part_is_what_the_whole_shows_there(tmp_path, part, first, count):
    rng = np.random.default_rng(0)
    sound = rng.integers(-9000, 9000, 32_000, np.int16)
    path = _make(tmp_path / "v.mov", np.arange(50) / 25, sound=sound)
    whole = video.read_video(path)
    some = video.read_video(path, min_frames=1, **part)
    assert some.num_frames == count
    expected = list(whole.frames(first, count))
    np.testing.assert_array_equal(list(some.frames()), expected)
    np.testing.assert_array_equal(list(some.frames(3, 2)), expected[3:5])
    np.testing.assert_array_equal(some.samples, whole.samples[first * 640 : (first + count) * 640])
    moved = whole.moved(0.04).samples[first * 640 : (first + count) * 640]
    np.testing.assert_array_equal(some.moved(0.04).samples, moved)
    with pytest.raises(video.VideoError, match=r"lasts 2\.00 s; --start 3 lies behind its end"):
        video.read_video(path, start=3.0)


def test_audio_of_any_kind_becomes_16_khz_mono(tmp_path):
    stereo = tmp_path / "stereo.wav"
    time = np.arange(44_100) / 44_100
    tone = (8000 * np.sin(2 * np.pi * 440 * time)).astype("<i2")
    with wave.open(str(stereo), "wb") as file:
        file.setparams((2, 2, 44_100, 0, "NONE", ""))
        file.writeframes(np.stack([tone, tone], 1).tobytes())
    samples = video.read_audio(stereo)
    expected = 8000 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert len(samples) == 16_000 and samples.dtype == np.int16
    assert np.abs(samples[200:-200] - expected[200:-200]).max() < 60
    plain = _noise(1.01)
    video.write_wav(tmp_path / "plain.wav", plain)
    np.testing.assert_array_equal(video.read_audio(tmp_path / "plain.wav"), plain)
    np.testing.assert_array_equal(video.read_wav(tmp_path / "plain.wav"), plain)
    assert len(video.read_audio(_make(tmp_path / "a.mov", np.arange(50) / 25, sound=plain))) == len(
        plain
    )


@pytest.mark.parametrize(
    "format, codec, suffix", [("mp3", "libmp3lame", "mp3"), ("ipod", "aac", "m4a")]
)
def test_compressed_audio_keeps_its_length_and_place(tmp_path, format, codec, suffix):
    path, sound = tmp_path / f"a.{suffix}", _noise(1.5)
    with av.open(str(path), "w", format=format) as container:
        track = container.add_stream(codec, rate=16_000, layout="mono")
        resampler = av.AudioResampler(
            format=track.format.name,
            layout="mono",
            rate=16_000,
            frame_size=track.frame_size or 1152,
        )
        frame = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(track.encode(piece))
        container.mux(track.encode(None))
    back = video.read_audio(path)
    assert abs(len(back) - len(sound)) < 1300
    scores = np.correlate(
        back[4000 - 1500 : 12_000 + 1500].astype(float), sound[4000:12_000].astype(float), "valid"
    )
    assert abs(int(scores.argmax()) - 1500) <= 1


def test_unusable_audio_is_refused_in_one_line(tmp_path):
    for name, content in (
        ("text.wav", b"not sound\n" * 60),
        ("text.mp3", b"not sound\n" * 60),
        ("empty.wav", b""),
    ):
        (tmp_path / name).write_bytes(content)
    video.write_wav(tmp_path / "none.wav", np.zeros(0, np.int16))
    silent = _make(tmp_path / "silent.mov", np.arange(50) / 25)
    names = ("text.wav", "text.mp3", "empty.wav", "none.wav", "absent.wav", ".", silent.name)
    for path in (tmp_path / n for n in names):
        with pytest.raises(video.AudioError) as error:
            video.read_audio(path)
        message = str(error.value)
        assert str(path) in message and "expected" in message and "\n" not in message
    with pytest.raises(video.AudioError, match="not a readable wav"):
        video.read_wav(tmp_path / "text.wav")
    video.write_wav(tmp_path / "fast.wav", np.zeros(10, np.int16), 44_100)
    with pytest.raises(video.AudioError, match="use read_audio"):
        video.read_wav(tmp_path / "fast.wav")
