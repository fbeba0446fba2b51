"""Files as people have them: what is read is what FFmpeg decodes from the beginning."""

import dataclasses
from fractions import Fraction

import av
import numpy as np
import pytest

from fg3dgs_jax.media import video
from tests.media import odd_files
from tests.media.odd_files import Recipe

MPEG2 = {"video": "mpeg2video", "audio": "mp2"}
PLAIN = {
    "transport stream": Recipe("ts", "mpegts"),
    "camcorder": Recipe("mts", "mpegts", audio="ac3", layout="stereo"),
    "program stream": Recipe("mpg", "mpeg", **MPEG2),
    "DVD": Recipe("vob", "vob", **MPEG2 | {"audio": "ac3"}),
    "open groups": Recipe("ts", "mpegts", options=(("g", "20"), ("x264-params", "open-gop=1"))),
    "no key picture but the first": Recipe(
        "ts", "mpegts", options=(("g", "999"), ("x264-params", "intra-refresh=1"))
    ),
    "avi with B-frames": Recipe(
        "avi", video="mpeg4", audio="libmp3lame", options=(("g", "30"), ("bf", "2"))
    ),
    "flash": Recipe("flv"),
    "mkv, hevc, 10 bit": Recipe(
        "mkv", video="libx265", pixels="yuv420p10le", options=(("x265-params", "log-level=none"),)
    ),
    "motion jpeg, full range": Recipe(
        "mov", video="mjpeg", pixels="yuvj422p", audio="pcm_s16le", tags=(("color_range", 2),)
    ),
    "prores 4:2:2": Recipe("mov", video="prores_ks", pixels="yuv422p10le", audio="pcm_s24le"),
    "huffyuv": Recipe("avi", video="ffvhuff", pixels="yuv411p", audio="pcm_u8", rate=44_100),
    "grey": Recipe("mkv", video="ffv1", pixels="gray10le", audio="flac"),
    "RGB": Recipe("mkv", video="libx264rgb", pixels="rgb24", audio="pcm_f32le"),
    "4:4:4, odd size": Recipe("mp4", pixels="yuv444p", size=(47, 63)),
    "BT.709 tagged": Recipe("mp4", tags=(("colorspace", 1),)),
    "full range": Recipe("mp4", tags=(("color_range", 2), ("colorspace", 1))),
    "pictures late": Recipe("mp4", video_start=0.48),
    "sound late, 30 fps": Recipe("mp4", sound_start=0.5, fps=30),
    "vp9": Recipe(
        "webm", video="libvpx-vp9", audio="libopus", options=(("deadline", "realtime"), ("g", "30"))
    ),
    "clock that overflows": Recipe("ts", "mpegts", video_start=95_442, sound_start=95_442),
    "telephone": Recipe("mov", audio="pcm_mulaw", rate=8_000),
}


@pytest.mark.parametrize("name", PLAIN)
def test_pictures_and_sound_are_those_of_plain_decoding(tmp_path, name):
    recipe = PLAIN[name]
    path = odd_files.make(tmp_path / f"a.{recipe.suffix}", recipe)
    clip = video.read_video(path)
    times, images = odd_files.plain_pictures(path)
    assert abs(clip.num_frames - 25 * odd_files.SECONDS) <= 1
    assert clip.source_fps == pytest.approx(recipe.fps, rel=0.02)
    expected = odd_files.on_the_clock(times, images, clip.num_frames)
    for i, frame in enumerate(clip.frames()):
        np.testing.assert_array_equal(frame, expected[i], f"frame {i}")
    assert i == clip.num_frames - 1
    for first in (1, 37, 62, clip.num_frames - 2):
        for i, frame in enumerate(clip.frames(first, 2), first):
            np.testing.assert_array_equal(frame, expected[i], f"frame {i}, sought")
    start, samples = odd_files.plain_sound(path)
    shift = round((start - times[0]) * 16_000)
    whole = np.zeros(clip.num_frames * 640, np.int16)
    kept = samples[max(0, -shift) :][: len(whole) - max(0, shift)]
    whole[max(0, shift) :][: len(kept)] = kept
    np.testing.assert_array_equal(clip.samples, whole)


def _joined(folder, *recipes, suffix="ts", sounds=None):
    """Files one after the other, byte by byte, as `cat` joins them."""
    path = folder / f"joined.{suffix}"
    parts = []
    for k, recipe in enumerate(recipes):
        sound = None if sounds is None else sounds[k]
        parts.append(odd_files.make(folder / f"part{k}.{recipe.suffix}", recipe, sound))
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path, parts


TS = Recipe("ts", "mpegts", audio="mp2", seconds=2)


@pytest.mark.parametrize("later", [0.0, 40.0, 7.4])
def test_a_clock_that_begins_anew_or_jumps_is_joined_on(tmp_path, later):
    second = dataclasses.replace(TS, first_picture=50, video_start=later, sound_start=later)
    sounds = [odd_files.speech(2, seed=seed) for seed in (0, 1)]
    path, parts = _joined(tmp_path, TS, second, sounds=sounds)
    clip = video.read_video(path)
    pieces = [odd_files.plain_pictures(part)[1] for part in parts]
    if later == 7.4:  # a hole that a broadcast may have: the last picture stands, nothing is heard
        assert not any("clock" in text for text in clip.source.timeline.repairs)
        times, images = odd_files.plain_pictures(path)
        assert clip.num_frames == round(25 * (times[-1] - times[0] + 0.04)) == 233
        assert clip.source.timeline.still == pytest.approx((1.96, 5.36), abs=0.01)
        expected = odd_files.on_the_clock(times, images, clip.num_frames)
        np.testing.assert_array_equal(list(clip.frames()), expected)
        return
    repair = clip.source.timeline.repairs[0]
    assert "clock jumps" in repair and f"2.00 to {max(later - 0.08, 0):.2f} s" in repair
    assert 100 <= clip.num_frames <= 103
    frames = list(clip.frames())
    for i in range(50):
        np.testing.assert_array_equal(frames[i], pieces[0][i])
    shown = [i for i, frame in enumerate(frames) if np.array_equal(frame, pieces[1][9])]
    assert 59 <= shown[0] <= 62  # the sound of a piece is up to two frames longer than its pictures
    for k in range(40):
        np.testing.assert_array_equal(frames[shown[0] + k], pieces[1][9 + k])
    begins, sound = odd_files.plain_sound(parts[1])
    some = sound[5000:15_000].astype(float)
    place = np.correlate(clip.samples.astype(float), some, "valid").argmax() - 5000
    pictures = odd_files.plain_pictures(parts[1])[0]
    at = place / 16_000 + pictures[9] - begins  # s, when picture 9 belongs to this sound
    assert abs(at - shown[0] / 25) < 0.021
    np.testing.assert_array_equal(next(clip.frames(70, 1)), frames[70])


def test_a_clock_that_begins_anew_in_pictures_only_is_refused_by_name(tmp_path):
    goes_on = dataclasses.replace(TS, sound_start=2.0, first_picture=50)
    path, _ = _joined(tmp_path, TS, goes_on)
    with pytest.raises(video.VideoError, match=r"pictures run back from 2.00 to 0.00 s") as error:
        video.read_video(path)
    assert str(path) in str(error.value) and "expected one clock" in str(error.value)
    goes_on = dataclasses.replace(TS, video_start=2.0, first_picture=50)
    path, _ = _joined(tmp_path, TS, goes_on)
    with pytest.raises(video.VideoError, match="sound run back"):
        video.read_video(path)


def test_pictures_that_run_back_a_little_are_read_on(tmp_path):
    path, parts = _joined(
        tmp_path, TS, dataclasses.replace(TS, sound_start=2.0, video_start=1.6, first_picture=50)
    )
    clip = video.read_video(path)
    assert any("pictures run back from 2.00 to 1." in r for r in clip.source.timeline.repairs)
    times = [odd_files.plain_pictures(part)[0] for part in parts]
    images = [odd_files.plain_pictures(part)[1] for part in parts]
    frames = list(clip.frames())
    assert len(frames) == round(25 * (times[1][-1] + 0.04 - times[0][0]))
    for i in range(49):  # up to where the clock runs back
        np.testing.assert_array_equal(frames[i], images[0][i])
    for k in range(1, 30):  # from where it has caught up
        np.testing.assert_array_equal(frames[-k], images[1][-k])


@pytest.mark.parametrize("wrong", [90_000 * 5000, 0])
def test_a_senseless_time_stamp_is_not_used(tmp_path, wrong):
    path = odd_files.make(tmp_path / "a.ts", TS)
    _, images = odd_files.plain_pictures(path)
    data = bytearray(path.read_bytes())
    # The picture's packet header of the 20th picture: time stamps of 33 bits in 5 bytes.
    at, found = 0, []
    while (at := data.find(b"\x00\x00\x01\xe0", at + 1)) >= 0:
        found.append(at)
    at = found[20] + 9
    for k in range(1 + (data[found[20] + 7] >> 6 == 3)):
        mark = data[at + 5 * k] & 0xF0
        data[at + 5 * k : at + 5 * k + 5] = bytes(
            [
                mark | (wrong >> 29) & 0x0E | 1,
                wrong >> 22 & 255,
                wrong >> 14 & 0xFE | 1,
                wrong >> 7 & 255,
                wrong << 1 & 0xFE | 1,
            ]
        )
    path.write_bytes(bytes(data))
    clip = video.read_video(path)
    assert clip.num_frames == 50
    assert clip.source.timeline.repairs == ("1 senseless time stamps of pictures are not used",)
    wrong = [i for i, frame in enumerate(clip.frames()) if np.any(frame != images[i])]
    assert len(wrong) <= 2


def _with_matrix(path, matrix):
    """Writes a display matrix (a, b, c, d) into the header of an mp4."""
    data = path.read_bytes()

    def words(a, b, c, d):
        numbers = (round(a * 65536), round(b * 65536), 0, round(c * 65536), round(d * 65536), 0)
        numbers = (*numbers, 0, 0, 0x40000000)
        return b"".join(n.to_bytes(4, "big", signed=True) for n in numbers)

    at = data.index(words(1, 0, 0, 1), data.index(b"tkhd"))
    path.write_bytes(data[:at] + words(*matrix) + data[at + 36 :])


MATRICES = {
    (1, 0, 0, 1): ("", lambda p: p),
    (0, 1, -1, 0): ("turned", lambda p: np.rot90(p, -1)),
    (-1, 0, 0, -1): ("turned", lambda p: np.rot90(p, 2)),
    (0, -1, 1, 0): ("turned", lambda p: np.rot90(p, 1)),
    (-1, 0, 0, 1): ("mirrored", lambda p: p[:, ::-1]),
    (1, 0, 0, -1): ("mirrored", lambda p: p[::-1]),
    (0, 1, 1, 0): ("turned and mirrored", lambda p: p.swapaxes(0, 1)),
    (0, -1, -1, 0): ("turned and mirrored", lambda p: np.rot90(p, 2).swapaxes(0, 1)),
    (0, 0, 0, 0): ("", lambda p: p),
}


@pytest.mark.parametrize("matrix", MATRICES)
def test_every_display_matrix_is_applied(tmp_path, matrix):
    path = odd_files.make(tmp_path / "a.mp4", Recipe(seconds=1))
    images = odd_files.plain_pictures(path)[1]
    _with_matrix(path, matrix)
    words, change = MATRICES[matrix]
    clip = video.read_video(path)
    upright = change(images[7])
    np.testing.assert_array_equal(list(clip.frames())[7], upright)
    assert (clip.height, clip.width) == upright.shape[:2]
    assert str(clip.source.orientation).startswith(words)


def test_a_slanted_display_matrix_is_refused(tmp_path):
    path = odd_files.make(tmp_path / "a.mp4", Recipe(seconds=1))
    _with_matrix(path, (0.7071, 0.7071, -0.7071, 0.7071))
    with pytest.raises(video.VideoError, match="45 degrees; expected quarter turns"):
        video.read_video(path)


# Of a program stream (mpg), FFmpeg writes a time stamp a frame late where a packet ends unluckily.
@pytest.mark.parametrize("suffix, video_codec", [("mp4", "libx264"), ("ts", "mpeg2video")])
def test_interlaced_pictures_are_deinterlaced_as_ffmpeg_does(tmp_path, suffix, video_codec):
    def moving(number, size):
        image = np.full((*size, 3), 40, np.uint8)
        for field in (0, 1):
            left = 2 * number + field + 4
            image[field::2, left : left + 12] = 220
        return image

    options = (("flags", "+ildct+ilme"), ("x264-params", "tff=1"), ("g", "12"))
    recipe = Recipe(
        suffix,
        video=video_codec,
        options=options if suffix == "mp4" else options[:1] + options[2:],
        seconds=1,
        audio="mp2" if suffix == "ts" else "aac",
    )

    def interlaced(number, size):
        frame = odd_files.frame_of(moving(number, size), recipe)
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=size[1], height=size[0], format="yuv420p", time_base=frame.time_base or 1
        )
        sink = graph.add("buffersink")
        graph.link_nodes(source, graph.add("setfield", "tff"), sink).configure()
        graph.push(frame)
        return graph.pull()

    path = odd_files.make(tmp_path / f"a.{suffix}", recipe, draw=interlaced)
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        assert frames[3].interlaced_frame
        graph = av.filter.Graph()
        source = graph.add_buffer(template=container.streams.video[0])
        sink = graph.add("buffersink")
        graph.link_nodes(source, graph.add("bwdif", "mode=0"), sink).configure()
        expected = []
        for frame in [*frames, None]:
            graph.push(frame)
            while True:
                try:
                    expected.append(graph.pull().to_ndarray(format="rgb24"))
                except (BlockingIOError, EOFError):
                    break
    clip = video.read_video(path)
    assert clip.source.interlaced and len(expected) == clip.num_frames == 25
    np.testing.assert_array_equal(list(clip.frames()), expected)
    for first in (3, 13, 20):
        np.testing.assert_array_equal(next(clip.frames(first, 1)), expected[first])
    combed = np.abs(np.diff(np.array(expected, int)[10, :, :, 0], axis=0)).mean()
    raw = np.abs(np.diff(frames[10].to_ndarray(format="rgb24")[..., 0].astype(int), axis=0)).mean()
    assert combed < 0.5 * raw


@pytest.mark.parametrize("frames", [0, 7, 13])
def test_an_edit_list_that_cuts_inside_a_group_is_obeyed(tmp_path, frames):
    path = odd_files.make(tmp_path / "a.mp4", Recipe(seconds=2))
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 12  # size, "elst", version and flags, count: then length and begin
    length, begin = (int.from_bytes(data[at + k : at + k + 4], "big") for k in (0, 4))
    data[at : at + 4] = (length - 40 * frames).to_bytes(4, "big")
    data[at + 4 : at + 8] = (begin + 512 * frames).to_bytes(4, "big")
    path.write_bytes(bytes(data))
    times, images = odd_files.plain_pictures(path)
    assert len(images) == 50 - frames
    clip = video.read_video(path)
    assert clip.num_frames == 50 - frames
    np.testing.assert_array_equal(list(clip.frames()), images)
    np.testing.assert_array_equal(next(clip.frames(30, 1)), images[30])
    begins, sound = odd_files.plain_sound(path)
    shift = round((begins - times[0]) * 16_000)
    assert shift == 0
    np.testing.assert_array_equal(clip.samples, sound[: len(clip.samples)])


def test_a_film_without_pauses_or_with_long_ones_keeps_its_times(tmp_path):
    """30 pictures a second of a screen on which nothing new is drawn for seconds."""
    times = [0.0, 0.033, 0.067, 4.1, 4.133, 15.7, 15.733, 16.0]
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = odd_files.HEIGHT, odd_files.WIDTH, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        track = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for k, time in enumerate(times):
            frame = odd_files.frame_of(odd_files.picture(3 * k), Recipe())
            frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        sound = odd_files.speech(16, 16_000)
        frame = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = 16_000, 0
        container.mux(track.encode(frame))
    clip = video.read_video(path)
    assert clip.source.timeline.repairs == () and clip.num_frames in (401, 402)
    assert clip.source.timeline.still == pytest.approx((4.133, 11.567), abs=0.01)
    assert clip.source_fps == pytest.approx(7 / 16, rel=0.01)
    expected = odd_files.on_the_clock(*odd_files.plain_pictures(path), clip.num_frames)
    np.testing.assert_array_equal(list(clip.frames()), expected)
