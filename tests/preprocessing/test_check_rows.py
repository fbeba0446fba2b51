"""Rows of the video check on files and sound, each against what is really in the file."""

import dataclasses

import numpy as np
import pytest

from fg3dgs_jax.media import video
from fg3dgs_jax.preprocessing import steps
from fg3dgs_jax.preprocessing.check import file_rows, look, rows, sample, sound_rows, verdicts
from tests.media import odd_files
from tests.media.odd_files import Recipe


def _evidence(clip):
    """All of a clip, in which nobody is seen."""
    pictures = list(clip.frames())
    sketches = sample.Sketches(len(pictures))
    for _ in sketches.watch(pictures):
        pass
    return sample.Evidence(
        fps=clip.source_fps,
        size=(clip.height, clip.width),
        output=(clip.height, clip.width),
        window=None,
        num_frames=clip.num_frames,
        samples=clip.samples,
        frames=np.arange(len(pictures)),
        pixels=np.zeros((len(pictures), 478, 2)),
        num_faces=np.zeros(len(pictures), int),
        rotation=np.tile(np.eye(3), (len(pictures), 1, 1)),
        thumbs=sketches.thumbs,
        greys=sketches.greys,
        source=clip.source,
        file_seconds=clip.source.timeline.end - clip.start,
        begin=clip.skipped / 25,
        other_tracks=look.other_tracks(clip),
    )


def _table(path, **options):
    """{name: row} of everything but the face."""
    e = _evidence(video.read_video(path, **options))
    return {row.name: row for row in [*file_rows.file_rows(e), *sound_rows.sound_rows(e)]}


def _voice(seconds, rate=48_000):
    """Syllables with pauses, loud enough to be speech."""
    time = np.arange(round(seconds * rate)) / rate
    return (odd_files.speech(seconds, rate) * (np.sin(2 * np.pi * time) > -0.3)).astype(np.int16)


@pytest.mark.parametrize("kind", ["digital silence", "nothing louder than -60 dBFS"])
def test_sound_that_is_not_there_is_bad_in_every_row(tmp_path, kind):
    sound = np.zeros(4 * 48_000, np.int16)
    if kind != "digital silence":
        sound[::50] = 4
    path = odd_files.make(tmp_path / "a.mov", Recipe("mov", audio="pcm_s16le"), sound)
    table = _table(path)
    assert table["sound"].verdict == "bad" and kind in table["sound"].found
    assert table["speech"].verdict == "bad" and table["sound level"].verdict == "unknown"
    assert rows.conclusion(list(table.values())).startswith("do not go on: sound")


def test_a_silent_track_beside_a_spoken_one_names_the_flag(tmp_path):
    sounds = [np.zeros(4 * 48_000, np.int16), _voice(4)]
    path = odd_files.make(tmp_path / "a.mkv", Recipe("mkv", audio="flac"), sounds)
    row = _table(path)["sound"]
    assert row.verdict == "bad" and "--audio_track 2" in row.advice
    assert "track 1 (flac, 48 kHz, mono) of 2: digital silence" in row.found
    table = _table(path, audio_track=2)
    assert table["sound"].verdict == "good" and "track 2 (flac" in table["sound"].found
    assert table["speech"].verdict == "good"


def test_channels_that_cancel_are_told_and_used(tmp_path):
    sound = _voice(4)
    recipe = Recipe("mov", audio="pcm_s16le")
    plain = _table(odd_files.make(tmp_path / "b.mov", recipe, np.stack([sound, sound])))
    table = _table(odd_files.make(tmp_path / "a.mov", recipe, np.stack([sound, -sound])))
    assert table["sound"].verdict == "usable" and "cancel each other" in table["sound"].found
    assert plain["sound"].verdict == "good" and plain["sound"].found == "pcm_s16le, 48 kHz, stereo"
    assert table["speech"] == plain["speech"] and table["sound level"] == plain["sound level"]


def test_sound_that_ends_early_is_told_with_its_time(tmp_path):
    path = odd_files.make(tmp_path / "a.mov", Recipe("mov", audio="pcm_s16le"), _voice(2))
    row = _table(path)["sound"]
    assert row.verdict == "usable" and "digital silence 2.0 to 4.0 s" in row.found


def test_noise_is_not_told_to_be_speech(tmp_path):
    noise = (np.random.default_rng(0).normal(size=4 * 48_000) * 3000).astype(np.int16)
    path = odd_files.make(tmp_path / "a.mov", Recipe("mov", audio="pcm_s16le"), noise)
    row = _table(path)["speech"]
    assert row.verdict == "bad" and "not told apart from noise" in row.found


def test_the_part_that_is_used_and_the_rate_that_is_there(tmp_path):
    path = odd_files.make(tmp_path / "a.mp4", Recipe(fps=30))
    table = _table(path, max_seconds=2)
    assert table["length"].found == "2 s of the 4 s in the file"
    assert table["frame rate"].found.startswith("30 fps")
    assert table["file"].verdict == "good" and table["file"].found == "as it is"


def test_what_was_put_right_is_told(tmp_path):
    recipe = Recipe("ts", "mpegts", audio="mp2", seconds=2)
    parts = [odd_files.make(tmp_path / f"{k}.ts", recipe) for k in range(2)]
    (tmp_path / "a.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    row = _table(tmp_path / "a.ts")["file"]
    assert row.verdict == "usable" and "the clock jumps from 2.00 to 0.00 s" in row.found
    tags = (("colorspace", 9), ("color_primaries", 9), ("color_trc", 18), ("color_range", 1))
    options = (("x265-params", "log-level=none"),)
    hdr = Recipe(video="libx265", pixels="yuv420p10le", seconds=1, tags=tags, options=options)
    row = _table(odd_files.make(tmp_path / "hdr.mp4", hdr))["file"]
    assert row.verdict == "usable" and "HDR (HLG) tone-mapped" in row.found
    assert "without HDR" in row.advice


def test_stripes_of_two_fields_without_a_mark_are_told(tmp_path):
    def draw(number, size, woven):
        image = np.full((*size, 3), 60, np.uint8)
        for field in (0, 1):
            left = 2 + (6 * number + 3 * field * woven) * (50 < number < 70) % 40
            image[field::2, left : left + 16] = 200
        return image

    for woven, verdict in ((True, "usable"), (False, "good")):
        path = odd_files.make(
            tmp_path / "a.mp4",
            Recipe(options=(("crf", "5"),)),
            draw=lambda number, size, woven=woven: draw(number, size, woven),
        )
        row = _table(path)["file"]
        assert row.verdict == verdict and ("ffmpeg -i IN -vf bwdif" in row.advice) == woven


def test_a_picture_that_stands_still_is_told(tmp_path):
    clip = video.read_video(odd_files.make(tmp_path / "a.mp4", Recipe()))
    timeline = clip.source.timeline._replace(still=(1.0, 2.5))
    clip = dataclasses.replace(clip, source=clip.source._replace(timeline=timeline))
    row = file_rows.file_rows(_evidence(clip))[2]
    assert row.verdict == "bad" and "no new picture from 1.0 to 3.5 s of the file" in row.found
    assert "--end 1.0" in row.advice and "--start 3.5" in row.advice
    rest = dataclasses.replace(clip, skipped=88, num_frames=12, samples=clip.samples[88 * 640 :])
    assert file_rows.file_rows(_evidence(rest))[2].verdict == "good"


def test_nobody_in_view_has_no_rows_on_faces_and_stops(tmp_path):
    table = verdicts.check(
        _evidence(video.read_video(odd_files.make(tmp_path / "a.mp4", Recipe())))
    )
    names = {row.name for row in table}
    assert "face in view" in names and not names & {"second faces", "blinks", "lips and sound"}
    last = verdicts.table(table).splitlines()[-1]
    assert last.startswith("=> do not go on: face in view")
    # What the table calls bad is what preprocessing refuses.
    assert (steps.MIN_FACES, steps.MAX_SECOND_FACE) == (0.5, 0.2)


@pytest.mark.parametrize(
    "given, expected",
    [
        ((), "go on: a good video"),
        (("usable",), "go on: the video will do (could be better: row 0)"),
        (("unknown",), "go on: the video will do (not known: row 0)"),
        (("usable", "bad", "bad"), "think before you go on: row 1, row 2 will show"),
    ],
)
def test_the_last_line_says_whether_to_go_on(given, expected):
    table = [rows.Row(f"row {k}", "x", verdict, "") for k, verdict in enumerate(given)]
    table.append(rows.Row("last", "x", "good", ""))
    assert rows.conclusion(table).startswith(expected)
