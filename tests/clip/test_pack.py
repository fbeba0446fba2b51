"""A processed folder as one file: what comes back, who reads it, and what is refused."""

import hashlib
import json
import os
import zipfile

import numpy as np
import pytest

from fg3dgs_jax.clip import format, pack, processed, streams
from fg3dgs_jax.clip.open import open_clip
from fg3dgs_jax.config.defaults import Data
from fg3dgs_jax.preprocess import main as preprocess
from fg3dgs_jax.synthetic import subject
from fg3dgs_jax.training import batches


def _mel(samples, num_frames):
    return np.repeat(np.arange(num_frames, dtype=np.float32), 32).reshape(-1, 4, 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten frames of the embedded subject, 62 px (no multiple of a macro-block)."""
    path = tmp_path_factory.mktemp("clips") / "person"
    subject.make_clip(path, seconds=0.4, size=62, features={"mel": _mel})
    for name in pack.LEFT_OUT:
        (path / name).write_text("{}")
    (path / "report").mkdir()
    (path / "report" / "a.png").write_bytes(b"picture")
    return path


@pytest.fixture(scope="module")
def packed(folder):
    return pack.pack(folder)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def psnr(a, b):
    return 10 * np.log10(255**2 / ((a.astype(float) - b) ** 2).mean())


def test_what_comes_back(folder, packed, tmp_path):
    assert packed == folder.with_name("person.fg3dgs")
    out = pack.unpack(packed, tmp_path / "back")
    before, after = open_clip(folder), processed.load_clip(out)
    np.testing.assert_array_equal(before.labels, after.labels)
    torso, frames = np.asarray(after.torso), np.asarray(after.frames)
    assert psnr(before.frames, frames) > 40
    assert psnr(before.backgrounds(), after.backgrounds()) > 40
    for value in (0, 255):  # what is solid stays solid
        np.testing.assert_array_equal(before.torso[..., 3] == value, torso[..., 3] == value)
    # Where the frame showed the torso it still does, to the last level.
    shown = streams.torso_state(before.frames, before.torso) == streams.SHOWN
    assert shown.any()
    np.testing.assert_array_equal(torso[shown, :3], frames[shown])
    left = {p.relative_to(folder).as_posix() for p in folder.rglob("*")} - set(pack.LEFT_OUT)
    left = left - {f"{name}.npy" for name in format.ARRAYS} | set(streams.STREAMS)
    assert left == {p.relative_to(out).as_posix() for p in out.rglob("*")}
    for name in ("camera.npz", "audio.wav", "audio_mel.npy", "meta.json", "report/a.png"):
        assert (folder / name).read_bytes() == (out / name).read_bytes()
    assert not list(packed.parent.glob(".*"))


def test_manifest_names_every_member(packed):
    manifest = pack.read_manifest(packed)
    with zipfile.ZipFile(packed) as archive:
        sizes = {i.filename: i.file_size for i in archive.infolist()}
    assert sizes.pop(pack.MANIFEST)
    assert sizes == {m["name"]: m["size"] for m in manifest["members"]}
    assert all(len(m["sha256"]) == 64 for m in manifest["members"])
    assert (manifest["T"], manifest["schema"], manifest["name"]) == (10, format.SCHEMA, "person")


def test_readers_of_folders_read_the_file_and_unpack_it_once(packed, cache, capsys, monkeypatch):
    clip = open_clip(packed, 31)
    assert clip.height == 31 and clip.path.name == "person" and cache in clip.path.parents
    assert "(once)" in capsys.readouterr().err
    monkeypatch.setattr(pack, "unpack", None)
    again = open_clip(str(packed))
    on_device = batches.device_clip(again, Data(expression=("AU45",)))
    assert on_device.frames.shape == (10, 62, 62, 3)
    assert (clip.path / "audio.wav").exists()


def test_the_files_last_used_stay_in_the_cache(packed, cache, tmp_path, capsys):
    places = []
    for k in range(pack.KEPT + 2):
        other = tmp_path / f"{k}.fg3dgs"
        _damage(packed, other, lambda name, data: data)
        with zipfile.ZipFile(other, "a") as archive:
            archive.comment = b"%d" % k  # another digest
        places.append(pack.opened(other))
        os.utime(places[-1].parent, (1e9 + k,) * 2)
        pack.opened(tmp_path / "0.fg3dgs")  # is always the last one used
    assert [p.exists() for p in places] == [True, False, False, *[True] * (pack.KEPT - 1)]
    assert len(list((cache / "fg3dgs" / "clips").iterdir())) == pack.KEPT


def _damage(packed, target, change):
    """A copy of the zip with `change`d members {name: bytes}, its own sums whole."""
    with zipfile.ZipFile(packed) as source, zipfile.ZipFile(target, "w") as out:
        for item in source.infolist():
            out.writestr(item, change(item.filename, source.read(item)))
    return target


def test_a_file_of_version_1_becomes_arrays(folder, packed, tmp_path):
    labels = processed.load_clip(folder).labels
    digest = hashlib.sha256(labels.tobytes()).hexdigest()

    def older(name, data):
        if name != pack.MANIFEST:
            return data
        return json.dumps(json.loads(data) | {"version": 1, "labels_sha256": digest}).encode()

    out = pack.unpack(_damage(packed, tmp_path / "old.fg3dgs", older), tmp_path / "out")
    names = {p.name for p in out.iterdir()}
    assert names >= {f"{n}.npy" for n in format.ARRAYS} and not names & set(streams.STREAMS)
    clip = processed.load_clip(out)
    assert isinstance(clip.labels, np.memmap) and len(clip.frames) == 10
    np.testing.assert_array_equal(clip.labels, labels)
    small = pack.unpack(pack.pack(out), tmp_path / "small")  # and streams again, of few bytes
    assert streams.whole(small) and not (small / "frames.npy").exists()


def test_a_damaged_file_is_refused_in_one_line(packed, tmp_path, capsys):
    whole = packed.read_bytes()
    short, flipped = tmp_path / "short.fg3dgs", tmp_path / "flipped.fg3dgs"
    short.write_bytes(whole[: len(whole) // 2])
    at = len(whole) // 2
    flipped.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
    other = tmp_path / "camera.fg3dgs"
    _damage(packed, other, lambda name, data: data[:-1] + b"!" if name == "camera.npz" else data)
    version = tmp_path / "version.fg3dgs"

    def newer(name, data):
        if name != pack.MANIFEST:
            return data
        return json.dumps(json.loads(data) | {"version": 9}).encode()

    _damage(packed, version, newer)
    text = tmp_path / "text.fg3dgs"
    text.write_text("hello")
    for file, words in (
        (short, "not a whole packed folder"),
        (flipped, "not a whole packed folder"),
        (other, "camera.npz has another sha256"),
        (version, "is of version 9"),
        (text, "not a whole packed folder"),
        (tmp_path / "none.fg3dgs", "does not exist"),
    ):
        out = tmp_path / "out"
        assert preprocess(["--unpack", str(file), "--out", str(out)]) == 1
        (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
        assert words in line and file.name in line
        assert not list(tmp_path.glob("*out*"))
    with pytest.raises(ValueError, match="not a whole packed folder"):
        open_clip(short)


def test_a_member_cannot_be_put_outside(packed, tmp_path):
    def change(name, data):
        if name != pack.MANIFEST:
            return data
        found = json.loads(data)
        found["members"][-1]["name"] = "../mine.txt"
        return json.dumps(found).encode()

    evil = _damage(packed, tmp_path / "evil.fg3dgs", change)
    with pytest.raises(pack.PackError, match=r"\.\./mine\.txt"):
        pack.unpack(evil, tmp_path / "sub" / "out")
    assert not list(tmp_path.rglob("mine.txt"))


def test_a_full_disk_is_told_before_the_work(packed, tmp_path, monkeypatch):
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr(pack.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="GB free"):
        pack.unpack(packed, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_program(folder, tmp_path, capsys):
    file, out = tmp_path / "a.fg3dgs", tmp_path / "out"
    assert preprocess(["--pack", str(folder), "--out", str(file)]) == 0
    assert preprocess(["--unpack", str(file), "--out", str(out)]) == 0
    assert open_clip(out).num_frames == 10
    assert preprocess(["--unpack", str(file), "--out", str(out)]) == 1
    assert "is there already" in capsys.readouterr().err
    (tmp_path / "half").mkdir()
    assert preprocess(["--pack", str(tmp_path / "half")]) == 1
    assert "unfinished" in capsys.readouterr().err
    for argv in ([], ["--video", "v", "--pack", "p"], ["--unpack", "f"]):
        with pytest.raises(SystemExit):
            preprocess(argv)
