"""Names of files, cover pictures, numbers that are none."""

import os

import numpy as np
import pytest

from fg3dgs_jax.media import video
from tests.media import odd_files
from tests.media.odd_files import Recipe

NAMES = ("a:b.mp4", "-x.mp4", "http:c.mp4", "100%d.mp4", "two words.mp4", "#1?.mp4", "ä'\"[1].mp4")


@pytest.mark.parametrize("name", NAMES)
def test_any_name_can_be_read_and_written(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    video.write_video(name, [np.full((32, 32, 3), 90, np.uint8)] * 25, odd_files.speech(1, 16_000))
    assert os.listdir(".") == [name]
    clip = video.read_video(name)
    assert (
        clip.num_frames == len(list(clip.frames())) == 25 and len(video.read_audio(name)) > 15_000
    )


@pytest.mark.parametrize(
    "address", ["https://example.org/a.mp4", "rtsp://camera/1", "https:/example.org/a.mp4"]
)
def test_an_address_is_refused_in_one_line(address):
    for read in (video.read_video, video.read_audio):
        with pytest.raises(
            ValueError, match=r"://.* is an address; expected .* on this machine: download"
        ):
            read(address)


@pytest.mark.parametrize("name", ["max_seconds", "start", "end"])
@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0])
def test_seconds_that_are_none_are_refused(tmp_path, name, seconds):
    with pytest.raises(video.VideoError, match=f"{name} is {seconds}; expected a number"):
        video.read_video(tmp_path / "a.mp4", **{name: seconds})


@pytest.mark.parametrize("marked", [True, False])
def test_a_cover_picture_first_is_not_the_film(tmp_path, marked):
    import av

    film = odd_files.make(tmp_path / "film.mp4", Recipe(seconds=1))
    path = tmp_path / "a.mp4"
    with av.open(str(film)) as source, av.open(str(path), "w") as target:
        cover = target.add_stream("mjpeg", rate=25)
        cover.height, cover.width, cover.pix_fmt = 40, 40, "yuvj420p"
        if marked:
            cover.disposition = av.stream.Disposition.attached_pic
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
        frame = av.VideoFrame.from_ndarray(np.full((40, 40, 3), 9, np.uint8)).reformat(
            format="yuvj420p"
        )
        target.mux(cover.encode(frame))
        target.mux(cover.encode(None))
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    clip = video.read_video(path)
    _, images = odd_files.plain_pictures(film)
    assert clip.num_frames == 25
    np.testing.assert_array_equal(list(clip.frames()), images)


def test_only_a_cover_picture_is_no_video(tmp_path):
    import av

    with av.open(str(tmp_path / "a.mp4"), "w") as target:
        cover = target.add_stream("mjpeg", rate=25)
        cover.height, cover.width, cover.pix_fmt = 40, 40, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        sound = target.add_stream("aac", rate=48_000, layout="mono")
        frame = av.VideoFrame.from_ndarray(np.full((40, 40, 3), 9, np.uint8))
        target.mux(cover.encode(frame.reformat(format="yuvj420p")))
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        samples.sample_rate, samples.pts = 48_000, 0
        target.mux(sound.encode(samples))
        for stream in (cover, sound):
            target.mux(stream.encode(None))
    with pytest.raises(video.VideoError, match="only a cover picture"):
        video.read_video(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    "suffix, codecs",
    [("webm", ("vp9", "opus")), ("mkv", ("h264", "aac")), ("mov", ("h264", "aac"))],
)
def test_the_name_says_the_format(tmp_path, suffix, codecs):
    frames = [odd_files.picture(k, (49, 63)) for k in range(30)]
    sound = odd_files.speech(30 / 25, 16_000)
    path = tmp_path / f"a.{suffix}"
    assert video.write_video(path, iter(frames), sound) == 30
    assert tuple(s.codec for s in video.probe_streams(path)) == codecs
    clip = video.read_video(path)
    assert (clip.num_frames, clip.height, clip.width) == (30, 50, 64)
    for i, frame in enumerate(clip.frames()):
        assert np.abs(frame[:49, :63].astype(int) - frames[i]).mean() < 4
    lag = np.correlate(clip.samples[2000:-2000].astype(float), sound[4000:12_000], "valid").argmax()
    assert abs(lag - 2000) <= 16


@pytest.mark.parametrize("name", ["a.avi", "a.wav", "a", "a.png"])
def test_other_formats_are_refused_before_anything_is_drawn(tmp_path, name):
    def never():
        raise AssertionError("a frame was drawn")
        yield

    with pytest.raises(video.VideoError, match=r"expected a name that ends in .mp4"):
        video.write_video(tmp_path / name, never())
