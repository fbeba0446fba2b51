"""Sound: channels that cancel, tracks, rates that change, and what is not there."""

import wave

import av
import numpy as np
import pytest

from fg3dgs_jax.media import video
from tests.media import odd_files
from tests.media.odd_files import Recipe


def _similar(a, b):
    count = min(len(a), len(b))
    return np.corrcoef(a[:count].astype(float), b[:count].astype(float))[0, 1]


@pytest.mark.parametrize("suffix, codec", [("mov", "pcm_s16le"), ("mp4", "aac"), ("mkv", "flac")])
def test_an_inverted_channel_does_not_silence_the_mix(tmp_path, suffix, codec):
    sound = odd_files.speech(2)
    recipe = Recipe(suffix, audio=codec, seconds=2)
    plain = odd_files.make(tmp_path / f"plain.{suffix}", recipe, np.stack([sound, sound]))
    inverted = odd_files.make(tmp_path / f"a.{suffix}", recipe, np.stack([sound, -sound]))
    assert np.abs(odd_files.plain_sound(inverted)[1]).max() < 500  # what a plain mix gives
    clip, expected = video.read_video(inverted), video.read_video(plain)
    assert clip.source.inverted and not expected.source.inverted
    assert np.abs(clip.samples.astype(int) - expected.samples).max() <= (
        2 if codec != "aac" else 900
    )
    assert _similar(clip.samples, expected.samples) > 0.99
    heard = video.listen(inverted)
    assert heard.inverted and np.array_equal(heard.samples[: len(clip.samples)], clip.samples)
    assert np.array_equal(clip.moved(0.2).moved(0.0).samples, clip.samples)


def test_different_channels_and_a_dead_one_are_mixed_as_ffmpeg_does(tmp_path):
    a, b = odd_files.speech(2), odd_files.speech(2, seed=1)
    for channels in ((a, b), (a, np.zeros_like(a)), (a, -a // 4)):
        path = odd_files.make(
            tmp_path / "a.mov", Recipe("mov", audio="pcm_s16le", seconds=2), np.stack(channels)
        )
        clip = video.read_video(path)
        assert not clip.source.inverted
        np.testing.assert_array_equal(clip.samples, odd_files.plain_sound(path)[1])


def test_one_of_several_tracks_is_chosen(tmp_path):
    tones = [odd_files.speech(2, seed=k) for k in range(3)]
    path = odd_files.make(tmp_path / "a.mkv", Recipe("mkv", audio="flac", seconds=2), tones)
    clip = video.read_video(path)
    assert [t.number for t in clip.source.tracks] == [1, 2, 3] and clip.source.track.number == 1
    for number in (1, 2, 3):
        expected = odd_files.plain_sound(path, number - 1)[1]
        chosen = video.read_video(path, audio_track=number)
        np.testing.assert_array_equal(chosen.samples, expected)
        np.testing.assert_array_equal(chosen.moved(0.1).moved(0).samples, expected)
        np.testing.assert_array_equal(video.read_audio(path, number), expected)
    for read, error in ((video.read_video, video.VideoError), (video.listen, video.AudioError)):
        with pytest.raises(error, match=r"track 4 of .* is not there.*1 \(flac, 48 kHz, mono\)"):
            read(path, audio_track=4)


def test_the_track_that_the_file_names_is_taken(tmp_path):
    path = tmp_path / "a.mkv"
    sounds = [odd_files.speech(2, seed=k) for k in range(2)]
    odd_files.make(tmp_path / "b.mkv", Recipe("mkv", audio="flac", seconds=2), sounds)
    with av.open(str(tmp_path / "b.mkv")) as source, av.open(str(path), "w") as target:
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
        kinds = av.stream.Disposition
        for stream, kind in zip(streams.values(), (1, 0, kinds.default), strict=True):
            stream.disposition = kinds(kind)
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    clip = video.read_video(path)
    assert clip.source.track.number == 2
    np.testing.assert_array_equal(clip.samples, odd_files.plain_sound(path, 1)[1])


@pytest.mark.parametrize("rates", [(48_000, 44_100), (44_100, 48_000), (32_000, 48_000)])
def test_a_rate_that_changes_midway_keeps_everything_in_its_place(tmp_path, rates):
    sounds, parts = [odd_files.speech(2, rate, k) for k, rate in enumerate(rates)], []
    for k, rate in enumerate(rates):
        recipe = Recipe(
            "ts", "mpegts", audio="mp2", rate=rate, seconds=2, video_start=2 * k, sound_start=2 * k
        )
        parts.append(odd_files.make(tmp_path / f"{k}.ts", recipe, sounds[k]))
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    clip = video.read_video(path)
    assert len(clip.source.forms) == 2 and abs(clip.num_frames - 100) <= 3
    times = [odd_files.plain_pictures(part)[0][0] for part in parts]
    for part in parts:
        begins, samples = odd_files.plain_sound(part)
        some = samples[8000:12_000].astype(float)
        expected = round(8000 + (begins - times[0]) * 16_000)
        near = clip.samples[expected - 400 : expected + 4400].astype(float)
        lag = np.correlate(near, some, "valid").argmax() - 400
        assert abs(lag) <= 16, part  # 1 ms, as containers keep times
    assert (
        _similar(video.read_audio(path)[:30_000], odd_files.plain_sound(parts[0])[1][:30_000]) > 0.9
    )


@pytest.mark.parametrize("layout, channels", [("5.1", 6), ("stereo", 2)])
@pytest.mark.parametrize("rate", [8_000, 96_000])
def test_other_rates_and_channels_are_mixed_as_ffmpeg_does(tmp_path, layout, channels, rate):
    sound = np.stack([odd_files.speech(1, rate, k) for k in range(channels)])
    recipe = Recipe("mkv", audio="pcm_s24le", rate=rate, seconds=1)
    path = odd_files.make(tmp_path / "a.mkv", recipe, sound)
    np.testing.assert_array_equal(video.read_video(path).samples, odd_files.plain_sound(path)[1])


def test_digital_silence_is_read_as_it_is(tmp_path):
    path = odd_files.make(tmp_path / "a.mp4", Recipe(seconds=1), np.zeros((2, 48_000), np.int16))
    clip = video.read_video(path)
    assert not clip.samples.any() and not clip.source.inverted


@pytest.mark.parametrize("count", [1, 7, 300])
def test_a_few_samples_are_sound_too(tmp_path, count):
    video.write_wav(tmp_path / "a.wav", np.full(count, 500, np.int16))
    np.testing.assert_array_equal(video.read_audio(tmp_path / "a.wav"), np.full(count, 500))
    with wave.open(str(tmp_path / "b.wav"), "wb") as file:
        file.setparams((2, 2, 48_000, 0, "NONE", ""))
        file.writeframes(np.full((count, 2), 500, "<i2").tobytes())
    if count < 100:  # FFmpeg's resampler makes nothing of so little
        with pytest.raises(video.AudioError, match="no sound, or less than 1 ms of it"):
            video.read_audio(tmp_path / "b.wav")
    else:
        np.testing.assert_array_equal(
            video.read_audio(tmp_path / "b.wav"), odd_files.plain_sound(tmp_path / "b.wav")[1]
        )
