"""A published file becomes an npz with a sidecar that proves it, found in the file's place."""

import dataclasses
import json

import numpy as np
import pytest

from fg3dgs_jax.experts import __main__ as program
from fg3dgs_jax.experts import check, convert
from fg3dgs_jax.weights import converted, files, store, variables

torch = pytest.importorskip("torch")


class _Toy:
    """Stands for a network's module."""

    @staticmethod
    def load(path):
        return variables.load(path, _Toy.convert)

    @staticmethod
    def convert(state):
        return {"params": {"dense": {"kernel": state["fc.weight"].T}}}


@pytest.fixture
def published(monkeypatch, tmp_path):
    """The path of a published file, whose row is all the registry has; the cache is empty."""
    path = tmp_path / "published" / "toy.pth"
    path.parent.mkdir()
    torch.save({"fc.weight": torch.arange(6.0).reshape(2, 3)}, path)
    row = store.WeightFile(
        "toy", "toy.pth", (), path.stat().st_size, files.digest(path), "MIT", "a toy"
    )
    network = check.Network(
        "weights.keys",
        run=lambda module, read: read["params"]["dense"]["kernel"],
        shape=(3, 2),
        read=lambda module, path: _Toy.load(path),
        to_save=lambda module, path: _Toy.load(path),
    )
    monkeypatch.setattr(store, "REGISTRY", {"toy": row})
    monkeypatch.setattr(check, "NETWORKS", {"toy": network})
    monkeypatch.setattr(store, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv("FG3DGS_WEIGHTS", raising=False)
    return path


def test_a_converted_file_stands_for_the_published_one(published, tmp_path, capsys):
    assert program.main(["convert", str(published)]) == 0
    path = tmp_path / "cache" / "toy.npz"
    assert capsys.readouterr().out == f"{path}\n"
    assert store.find("toy") == store.require("toy") == store.fetch("toy") == path
    assert {p.name for p in path.parent.iterdir()} == {"toy.npz", "toy.json"}
    entries = json.loads(path.with_suffix(".json").read_text())
    assert entries["source"] == "toy.pth" and entries["converter"] == converted.VERSION
    assert entries["source_sha256"] == files.digest(published)
    kernel = _Toy.load(path)["params"]["dense"]["kernel"]
    np.testing.assert_array_equal(kernel, np.arange(6.0).reshape(2, 3).T)
    assert program.main(["list"]) == program.main(["check"]) == 0
    told = capsys.readouterr().out
    assert "converted" in told and "verified; 0.00 M numbers, runs: [3, 2]" in told
    (path.parent / "toy.pth").write_bytes(published.read_bytes())
    assert store.find("toy").name == "toy.pth"  # in one folder the published file comes first


def test_what_the_sidecar_does_not_prove_is_refused(published, tmp_path, capsys):
    path = convert.convert(published, out=tmp_path / "cache")
    sidecar, arrays = converted.sidecar(path), path.read_bytes()
    entries = json.loads(sidecar.read_text())

    def refused(why):
        with pytest.raises(store.WeightsMissing, match=why) as error:
            store.find("toy")
        assert "\n" not in str(error.value) and "convert" in str(error.value)

    for changes, why in (
        ({"converter": converted.VERSION + 1}, "converter is"),
        ({"name": "other"}, "name is"),
        ({"source_sha256": "0" * 64}, "made of another file"),
        ({"sha256": "0" * 64}, "sha256 is"),
    ):
        sidecar.write_text(json.dumps(entries | changes))
        refused(why)
    for text in ("{", "[]", ""):
        sidecar.write_text(text)
        refused("no JSON object")
    sidecar.unlink()
    refused("is missing beside it")
    sidecar.write_text(json.dumps(entries))
    assert store.find("toy") == path
    path.write_bytes(arrays[:-1] + b"?")
    refused("sha256 is")
    assert program.main(["list"]) == program.main(["check"]) == 1
    assert capsys.readouterr().err.count("\n") == 2


def test_rows_without_a_sha256_take_what_they_know(published, tmp_path, monkeypatch):
    row = store.REGISTRY["toy"]
    sha1 = files.digest(published, "sha1")
    for changes, fits in (
        ({"sha256": "", "sha1": sha1}, True),
        ({"sha256": "", "sha1": "0" * 40}, False),
        ({"sha256": row.sha256[:10]}, True),
        ({"sha256": "0" * 10}, False),
        ({"sha256": "0" * 64, "also_sha256": (row.sha256,)}, True),
        ({"sha256": ""}, True),
    ):
        monkeypatch.setitem(store.REGISTRY, "toy", dataclasses.replace(row, **changes))
        if fits:
            assert convert.convert(published, out=tmp_path / "cache") == store.find("toy")
        else:
            with pytest.raises(store.WeightsMissing, match=r"is not the registered toy\.pth"):
                convert.convert(published)


def test_the_name_is_told_by_the_file_or_by_you(published, tmp_path, monkeypatch):
    other = published.rename(published.with_name("model.bin"))
    assert convert.convert(other, out=tmp_path).name == "toy.npz"
    row = dataclasses.replace(store.REGISTRY["toy"], sha256="")
    monkeypatch.setitem(store.REGISTRY, "toy", row)
    with pytest.raises(store.WeightsMissing, match="say which with --name"):
        convert.convert(other, out=tmp_path)
    assert program.main(["convert", str(other), "--name", "toy", "--out", str(tmp_path)]) == 0


def test_what_cannot_be_converted_is_one_line(published, tmp_path, monkeypatch, capsys):
    npz = convert.convert(published, out=tmp_path)
    for source in (tmp_path / "absent.pth", npz):
        assert program.main(["convert", str(source)]) == 1
    network = dataclasses.replace(check.NETWORKS["toy"], to_save=None)
    monkeypatch.setitem(check.NETWORKS, "toy", network)
    assert program.main(["convert", str(published)]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 3
    assert "no file" in told and "npz already" in told and "nothing to convert" in told
