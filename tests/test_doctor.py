"""The doctor names what is missing with the command that mends it."""

import importlib.metadata

import pytest

from fg3dgs_jax import doctor, native
from fg3dgs_jax.weights import store


def lines(capsys, *flags):
    code = doctor.main(list(flags))
    return code, capsys.readouterr().out


def test_what_is_missing_comes_with_its_remedy(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(store, "search_folders", lambda: [tmp_path])
    monkeypatch.setattr(native, "resolve_backend", lambda: "reference")
    code, told = lines(capsys, "--quick")
    assert code == 1 and told.splitlines()[-1] == "not ready: face_landmarker missing"
    assert "-> python -m fg3dgs_jax.weights fetch face_landmarker" in told
    assert f"-> {native.BUILD_COMMAND}" in told
    assert "the package's own, learnt from no person" in told

    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    _, told = lines(capsys, "--quick")
    assert "-> pip install 'fg3dgs_jax[preprocess]'" in told
    assert "not ready: mediapipe, face_landmarker missing" in told


def test_a_machine_with_everything_is_ready(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(store, "find", lambda name: tmp_path / name)
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "1.2")
    monkeypatch.setattr(doctor.memory, "available", lambda: 10**9)
    code, told = lines(capsys, "--quick")
    assert code == 0 and told.splitlines()[-1].startswith("ready: ")
    assert "1.0 GB available" in told and "-> end other programs before training" in told


def test_speed_is_measured(monkeypatch):
    if native.resolve_backend() == "reference":
        pytest.skip("no compiled rasterizer")
    monkeypatch.setattr(doctor, "SECONDS", 0.2)
    monkeypatch.setattr(doctor, "SIZE", 64)
    monkeypatch.setattr(doctor, "POPULATIONS", {"face": 64, "eyes": 32, "mouth": 32})
    finding = doctor._speed()
    assert int(finding.found.split()[0]) > 0 and "64 px" in finding.found
