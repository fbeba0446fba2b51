"""`synthesize` with an avatar that paints a mouth as open as the sound is loud."""

import hashlib
import os
import resource
import signal

import av
import numpy as np
import pytest

from fg3dgs_jax.avatar import play
from fg3dgs_jax.avatar import store as avatar_store
from fg3dgs_jax.media import video
from fg3dgs_jax.synthesis import provenance
from fg3dgs_jax.synthesize import main
from fg3dgs_jax.weights import store
from tests import fake_avatar
from tests.media import odd_files


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return fake_avatar.make_folder(tmp_path_factory.mktemp("synthesize") / "data", seconds=2)


@pytest.fixture
def program(data, monkeypatch, tmp_path):
    """Calls the program with the painted avatar: program(audio, out, *flags) -> exit code."""
    avatar = fake_avatar.Avatar(data)
    monkeypatch.setattr(avatar_store, "load", lambda _: avatar)
    (tmp_path / "avatar.npz").write_bytes(b"leaves")

    def call(audio, out, *flags):
        return main(["--workdir", str(tmp_path), "--audio", str(audio), "--out", str(out), *flags])

    call.avatar = avatar
    return call


def test_video_as_long_as_the_sound_and_longer_than_the_clip(program, tmp_path, capsys):
    sound, out = tmp_path / "speech.wav", tmp_path / "new" / "folder" / "talk.mp4"
    video.write_wav(sound, fake_avatar.speech(4.1, seed=9))
    assert program(sound, out, "--check") == 0
    streams = video.probe_streams(out)
    assert [(s.type, s.codec) for s in streams] == [("video", "h264"), ("audio", "aac")]
    assert streams[0].rate == 25
    back = video.read_video(out)
    assert back.num_frames == 103  # ceil(4.1 s * 25)
    assert sorted(p.name for p in out.parent.iterdir()) == ["talk.mp4", "talk.mp4.json"]
    printed = capsys.readouterr().out
    assert "frames/s" in printed
    true, highest = (
        float(printed.split("and sound: ")[1].split(";")[0]),
        float(printed.split("max ")[1].split()[0]),
    )
    assert true > 0.6 and true > highest


def test_frames_that_a_gpu_cut_short_are_told_in_one_line(program, tmp_path, capsys):
    sound = tmp_path / "speech.wav"
    video.write_wav(sound, fake_avatar.speech(1))
    assert program(sound, tmp_path / "talk.mp4") == 0
    assert "Gaussians" not in capsys.readouterr().err
    program.avatar.short = 3  # of every batch of 4
    assert program(sound, tmp_path / "talk.mp4") == 0
    told = [s for s in capsys.readouterr().err.splitlines() if "Gaussians" in s]
    assert len(told) == 1 and "19 of 25 frames" in told[0] and "JAX_PLATFORMS=cpu" in told[0]


def test_the_mouth_follows_the_new_sound(program, tmp_path):
    sound, out = tmp_path / "speech.wav", tmp_path / "talk.mp4"
    samples = np.concatenate(
        [np.zeros(16_000, np.int16), fake_avatar.speech(1, seed=3) + 500]
    ).astype(np.int16)
    video.write_wav(sound, samples)
    assert program(sound, out, "--crf", "5") == 0
    dark = [np.mean(f[..., 0] < 100) for f in video.read_video(out).frames()]
    assert max(dark[2:22]) == 0.0 and np.mean(dark[28:48]) > 0.005


def test_poses_come_from_the_split_forth_and_back(program, tmp_path, monkeypatch):
    drives = []
    draw = play.draw_pictures

    def spy(avatar, clip, drive):
        drives.append(drive)
        return draw(avatar, clip, drive)

    monkeypatch.setattr(play, "draw_pictures", spy)
    video.write_wav(tmp_path / "a.wav", fake_avatar.speech(2))
    assert program(tmp_path / "a.wav", tmp_path / "o.mp4", "--split", "test") == 0
    (drive,) = drives
    assert drive.poses[:8].tolist() == [45, 46, 47, 48, 49, 48, 47, 46]
    assert np.abs(np.diff(drive.poses)).max() == 1
    assert drive.sounds.tolist() == list(range(50))


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "no samples"])
def test_bad_sound_is_one_line_and_leaves_nothing(program, tmp_path, capsys, kind):
    sound, out = tmp_path / "in.wav", tmp_path / "made" / "o.mp4"
    if kind == "empty":
        sound.write_bytes(b"")
    if kind == "text":
        sound.write_text("not a sound")
    if kind == "no samples":
        video.write_wav(sound, np.zeros(0, np.int16))
    assert program(sound, out) == 1
    message = capsys.readouterr().err.strip()
    assert "in.wav" in message and len(message.splitlines()) == 1
    assert not out.parent.exists()


def test_features_that_cannot_be_computed_are_refused(program, tmp_path, capsys, data):
    video.write_wav(tmp_path / "a.wav", fake_avatar.speech(1))
    np.save(data / "audio_words.npy", np.zeros((50, 16, 29), np.float32))
    program.avatar.config.data.audio_extractor = "words"
    assert program(tmp_path / "a.wav", tmp_path / "o.mp4") == 1
    assert "no audio extractor is called 'words'" in capsys.readouterr().err
    assert not (tmp_path / "o.mp4").exists()


def test_missing_weights_of_the_extractor_are_one_line(
    program, tmp_path, capsys, data, monkeypatch
):
    row = store.WeightFile("ave", "ave.pth", (), 1, "0" * 64, "CC BY-NC 4.0", "a test", "afar")
    monkeypatch.setitem(store.REGISTRY, "ave", row)
    monkeypatch.setattr(store, "search_folders", lambda: [tmp_path / "none"])
    video.write_wav(tmp_path / "a.wav", fake_avatar.speech(1))
    np.save(data / "audio_ave.npy", np.zeros((50, 1, 512), np.float32))
    program.avatar.config.data.audio_extractor = "ave"
    assert program(tmp_path / "a.wav", tmp_path / "o.mp4") == 1
    message = capsys.readouterr().err.strip()
    assert "ave.pth" in message and "CC BY-NC" in message and len(message.splitlines()) == 1


def test_windows_that_the_avatar_was_not_trained_on_are_refused(program, tmp_path, capsys, data):
    """By the folder's features, and by those of the new sound where the folder's are right."""
    video.write_wav(tmp_path / "a.wav", fake_avatar.speech(1))
    program.avatar.config.data.audio_window = [16, 29]
    assert program(tmp_path / "a.wav", tmp_path / "o.mp4") == 1
    message = capsys.readouterr().err.strip()
    assert "[16, 80]" in message and "[16, 29]" in message and len(message.splitlines()) == 1
    whole = np.load(data / "audio_mel.npy")
    try:
        np.save(data / "audio_mel.npy", whole[..., :29])
        assert program(tmp_path / "a.wav", tmp_path / "o.mp4") == 1
        assert "a.wav has 'mel' features" in capsys.readouterr().err
    finally:
        np.save(data / "audio_mel.npy", whole)
    assert not (tmp_path / "o.mp4").exists()


def test_a_failure_half_way_leaves_no_file(program, tmp_path, monkeypatch):
    video.write_wav(tmp_path / "a.wav", fake_avatar.speech(2))
    draw, calls = program.avatar.draw, []

    def fail(*arguments):
        calls.append(1)
        if len(calls) > 3:
            raise ValueError("the device ran out of memory")
        return draw(*arguments)

    monkeypatch.setattr(program.avatar, "draw", fail)
    assert program(tmp_path / "a.wav", tmp_path / "o.mp4") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.wav", "avatar.npz"]


def test_a_clip_that_has_moved_names_the_flag(program, tmp_path, capsys):
    video.write_wav(tmp_path / "a.wav", fake_avatar.speech(1))
    program.avatar.config.data.path = str(tmp_path / "gone")
    assert program(tmp_path / "a.wav", tmp_path / "o.mp4") == 1
    message = capsys.readouterr().err
    assert "gone does not exist" in message and "--data FOLDER" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize("fault", ("a full disk", "SIGTERM", "memory", "a file for a folder"))
def test_what_the_system_refuses_is_one_line_and_leaves_no_part(
    program, tmp_path, capsys, monkeypatch, fault
):
    video.write_wav(tmp_path / "a.wav", fake_avatar.speech(2))
    out, code, words = tmp_path / "out" / "o.mp4", 1, "o.mp4 would be larger than the system allows"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    draw = program.avatar.draw
    if fault == "a full disk":
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048, limit[1]))
    elif fault == "a file for a folder":
        (tmp_path / "out").write_text("")
        words = "out is a file; expected a folder"
    else:
        code, words = (
            (130, "stopped by SIGTERM") if fault == "SIGTERM" else (1, "not enough memory")
        )

        def stopped(*arguments):
            if fault == "memory":
                raise MemoryError("Unable to allocate 3 GiB")
            os.kill(os.getpid(), signal.SIGTERM)
            return draw(*arguments)

        monkeypatch.setattr(program.avatar, "draw", stopped)
    try:
        assert program(tmp_path / "a.wav", out) == code
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    lines = capsys.readouterr().err.splitlines()
    told = [x for x in lines if x.startswith("synthesize: ") and "frame/s" not in x]  # no bar
    assert len(told) == 1 and words in told[0], lines
    assert not any("Traceback" in x for x in lines)
    assert not out.parent.is_dir() or list(out.parent.iterdir()) == []


def test_quality_outside_the_range_is_refused(program, tmp_path):
    with pytest.raises(SystemExit) as stop:
        program(tmp_path / "a.wav", tmp_path / "o.mp4", "--crf", "52")
    assert stop.value.code == 2


def test_the_name_says_the_kind_of_video(program, tmp_path, capsys, monkeypatch):
    video.write_wav(tmp_path / "a.wav", fake_avatar.speech(1))
    assert program(tmp_path / "a.wav", tmp_path / "o.webm") == 0
    assert [s.codec for s in video.probe_streams(tmp_path / "o.webm")] == ["vp9", "opus"]
    assert video.read_video(tmp_path / "o.webm").num_frames == 25
    monkeypatch.setattr(avatar_store, "load", lambda _: 1 / 0)  # refused before that
    capsys.readouterr()
    assert program(tmp_path / "a.wav", tmp_path / "o.avi") == 1
    message = capsys.readouterr().err.strip()
    assert "o.avi" in message and ".webm" in message and len(message.splitlines()) == 1


def test_one_of_several_tracks_speaks(program, tmp_path, capsys):
    sounds = [np.zeros(48_000, np.int16), odd_files.speech(2)]
    path = odd_files.make(tmp_path / "a.mkv", odd_files.Recipe("mkv", audio="flac"), sounds)
    assert program(path, tmp_path / "one.mp4") == 0
    assert "track 1 (flac, 48 kHz, mono) is digital silence" in capsys.readouterr().err
    assert video.read_video(tmp_path / "one.mp4").num_frames == 25
    assert program(path, tmp_path / "two.mp4", "--audio_track", "2") == 0
    assert "silence" not in capsys.readouterr().err
    assert video.read_video(tmp_path / "two.mp4").num_frames == 50
    assert program(path, tmp_path / "three.mp4", "--audio_track", "3") == 1
    assert "sound track 3 of" in capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 2, 641])
def test_a_few_samples_of_sound_are_a_frame_or_two(program, tmp_path, count):
    video.write_wav(tmp_path / "a.wav", np.full(count, 700, np.int16))
    assert program(tmp_path / "a.wav", tmp_path / "o.mp4") == 0
    streams = {s.type: s for s in video.probe_streams(tmp_path / "o.mp4")}
    assert streams["video"].seconds == pytest.approx(0.04 * (1 + (count > 640)), abs=1e-3)


def test_the_sound_goes_on_as_it_came(program, tmp_path):
    tones = [np.sin(2 * np.pi * f * np.arange(96_000) / 48_000) for f in (300, 700)]
    sound = np.rint(9000 * np.stack(tones, 1)).astype(np.int16)
    for kept, layout in ((sound.T, "stereo"), (sound[:, 0], "mono")):
        source = odd_files.make(
            tmp_path / f"{layout}.mov",
            odd_files.Recipe("mov", audio="pcm_s16le", rate=48_000, layout=layout, seconds=2),
            [kept],
        )
        assert program(source, tmp_path / f"{layout}.mp4") == 0
        with av.open(str(tmp_path / f"{layout}.mp4")) as file:
            stream = file.streams.audio[0]
            assert (stream.rate, stream.layout.name) == (48_000, layout)
            heard = np.concatenate([f.to_ndarray() for f in file.decode(stream)], 1)
        spectrum = np.abs(np.fft.rfft(heard[:, 8_000:88_000]))
        peaks = (spectrum.argmax(1) * 48_000 / 80_000).tolist()
        assert peaks == pytest.approx([300, 700][: len(heard)], abs=2)


def test_a_video_says_that_it_was_made(program, tmp_path, capsys):
    video.write_wav(tmp_path / "a.wav", fake_avatar.speech(1))
    for name in ("o.mp4", "o.webm", "o.mkv"):
        out = tmp_path / name
        assert program(tmp_path / "a.wav", out) == 0
        capsys.readouterr()
        assert main(["--verify", str(out)]) == 0
        told = capsys.readouterr().out
        assert "generated: true" in told and "is as it was written" in told
        assert hashlib.sha256((tmp_path / "a.wav").read_bytes()).hexdigest() in told
        assert hashlib.sha256(b"leaves").hexdigest() in told
    with open(out, "ab") as file:
        file.write(b"x")
    assert main(["--verify", str(out)]) == 0
    assert "has been changed since" in capsys.readouterr().out
    provenance.sidecar(out).unlink()
    assert main(["--verify", str(out)]) == 0 and "is not there" in capsys.readouterr().out
    video.write_video(tmp_path / "p.mp4", video.read_video(out).frames())
    assert main(["--verify", str(tmp_path / "p.mp4")]) == 1
    assert "does not say that it was made by" in capsys.readouterr().err


def test_controls_reach_the_avatar(program, tmp_path, capsys):
    video.write_wav(tmp_path / "a.wav", fake_avatar.speech(1))
    (tmp_path / "look.csv").write_text("AU01,AU45\n0,1\n1,1\n")
    flags = ["--pose", "still", "--eyes", str(tmp_path / "look.csv"), "--mouth_gain", "0"]
    assert program(tmp_path / "a.wav", tmp_path / "o.mp4", *flags) == 0
    rows = np.concatenate(program.avatar.expressions)[:25]
    assert np.ptp(rows[:, 1]) == 0 and rows[0, 1] > 0.5  # the lids stay shut
    dark = [np.mean(f[..., 0] < 100) for f in video.read_video(tmp_path / "o.mp4").frames()]
    assert max(dark) == 0.0
    program.avatar.expressions.clear()
    curve = f"AU01={tmp_path / 'look.csv'}"
    assert program(tmp_path / "a.wav", tmp_path / "o.mp4", "--expression", curve) == 0
    rows = np.concatenate(program.avatar.expressions)[:25]
    assert rows[0, 0] < rows[1, 0] == rows[-1, 0]
    capsys.readouterr()
    for wrong in (["--expression", "AU12=1"], ["--blink", "much"], ["--mouth_gain", "9"]):
        assert program(tmp_path / "a.wav", tmp_path / "w.mp4", *wrong) == 1
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "w.mp4").exists()
    for wrong in (["--pose", "lying"], ["--size", "7"]):
        with pytest.raises(SystemExit, match="2"):
            program(tmp_path / "a.wav", tmp_path / "w.mp4", *wrong)


def test_names_with_a_dash_or_a_colon(program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    video.write_wav("-a:b.wav", fake_avatar.speech(1))
    assert program("-a:b.wav", "-o:p.mp4") == 0
    assert video.read_video("-o:p.mp4").num_frames == 25
