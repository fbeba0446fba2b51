"""A run shared by devices or by processes, or that reads its pictures as it goes: the same run as
on one device that holds the clip and takes all the frames."""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# As tests/conftest.py's, but with XLA's own choice of emitters: with the others two programs that
# share a computation round it differently.
CHEAP = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
# What training on a folder of arrays does without: these runs cannot import them.
NOT_NEEDED = ("av", "librosa", "matplotlib", "mediapipe", "soundfile", "torch")


def program(folder, workdir, *flags, devices=1):
    """`train` on the same config in a process of its own."""
    file = workdir.with_suffix(".py")
    file.write_text(
        f"import sys\nsys.modules.update(dict.fromkeys({NOT_NEEDED}))\n"
        "from tests.painted import still\n"
        f"get_config = lambda: still({str(folder)!r}, 1)\n"
    )
    environment = os.environ | {
        "XLA_FLAGS": f"{CHEAP} --xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "JAX_PLATFORMS": "cpu",
        # What the programs have in common is compiled by the first of them.
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "JAX_COMPILATION_CACHE_DIR": str(folder.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    environment.pop("NPROC", None)  # that the emulated devices do not hang is for `train` to see to
    return subprocess.Popen(
        [sys.executable, "-m", "fg3dgs_jax.train", f"--config={file}", f"--workdir={workdir}"]
        + list(flags),
        env=environment,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(process):
    try:
        told, _ = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 0, f"{told[:2000]}\n...\n{told[-1000:]}"
    return told


def metrics(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "steps_per_second"} for row in rows]


@pytest.fixture(scope="module")
def alone(folder, tmp_path_factory):
    """The workdir of one device with eight frames a step."""
    workdir = tmp_path_factory.mktemp("alone")
    finish(program(folder, workdir, "--config.batch=8"))
    return workdir


def assert_same(found, wanted):
    found, wanted = metrics(found), metrics(wanted)
    assert [row["step"] for row in found] == [row["step"] for row in wanted] == [5, 10, 15]
    for a, b in zip(found, wanted, strict=True):
        assert set(a) == set(b) and a["stage"] == b["stage"]
        for name in set(a) - {"step", "stage"}:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-4, atol=1e-7, err_msg=name)


def test_a_run_is_the_same_to_the_bit_without_resident_pictures(folder, tmp_path, alone):
    flags = ["--config.batch=8", "--config.data.resident=host"]
    finish(program(folder, tmp_path / "run", *flags))
    with np.load(alone / "avatar.npz") as a, np.load(tmp_path / "run/avatar.npz") as b:
        assert set(a.files) == set(b.files)
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("devices", [2, 8])
def test_devices_are_one_with_the_batch_of_all(folder, tmp_path, alone, devices):
    flags = ["--profile", f"--config.batch={8 // devices}"]
    told = finish(program(folder, tmp_path / "run", *flags, devices=devices))
    assert_same(tmp_path / "run", alone)
    assert re.search(r"static: [\d.]+ ms a step", told) and "named scopes: batch" in told


def test_two_processes_share_a_run_and_write_it_once(folder, tmp_path, alone):
    """Each of them has two devices."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    flags = ["--distributed", f"--coordinator=localhost:{port}", "--num_processes=2"]
    flags += ["--config.batch=2"]
    workdir = tmp_path / "run"
    processes = [program(folder, workdir, *flags, f"--process_id={i}", devices=2) for i in range(2)]
    try:
        told = [finish(p) for p in processes]
    finally:
        for p in processes:
            p.kill()
    assert_same(workdir, alone)
    assert ["trained" in t for t in told] == [True, False]
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["10", "15"]
    assert [len(list(workdir.glob(p))) for p in ("tensorboard/*", "samples/*.png")] == [1, 3]
