"""The driver of the CUDA kernels without JAX, compiled for the host: what it finds and says."""

import os
import subprocess

import pytest

from fg3dgs_jax import native
from tests import host_cuda
from tests.host_cuda import references

REASON = host_cuda.missing() or (
    ""
    if native.has_targets("rasterizer", "cpu")
    else "libfg3dgs_cpu is not built (pip install -e .)"
)
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    program = tmp_path_factory.mktemp("driver") / "driver"
    host_cuda.build_driver(program)

    def run(*arguments, **environment):
        command, environment = [program, *map(str, arguments)], {**os.environ, **environment}
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    return run


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("references") / "two.ref"
    references.write(path, references.Case(30, 24, 20, 3, 2), backend="cpu")
    return path


def test_agrees_with_a_reference(driver, reference):
    done = driver(reference)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout
    assert all(line.endswith("ok") for line in lines)
    for what in ("image", "v_pose", "pairs", "twice", "batch = loop", "longer list", "guards"):
        assert sum(f" {what} " in line for line in lines) == 1, what


@pytest.mark.parametrize(("name", "place"), [("pairs", -1), ("v_pose", -3)])
def test_tells_what_differs(driver, reference, tmp_path, name, place):
    changed = tmp_path / "changed.ref"
    data = bytearray(reference.read_bytes())
    begin = len(data) + 4 * place
    data[begin : begin + 4] = b"\0\0\xa0\x42"  # 80.0
    changed.write_bytes(data)
    done = driver(changed)
    failed = [line for line in done.stdout.splitlines() if line.endswith("FAILED")]
    assert done.returncode == 1
    assert [line.split()[1] for line in failed] == [name, "files"]


@pytest.mark.parametrize(("data", "message"), [(b"", "ends early"), (bytes(56), "not a file of")])
def test_refuses_what_is_no_reference(driver, tmp_path, data, message):
    (tmp_path / "other.ref").write_bytes(data)
    done = driver(tmp_path / "other.ref")
    assert done.returncode == 2 and message in done.stdout


@pytest.mark.parametrize(("keys", "order"), [(1, "1"), (2048, "2"), (5000, "3")])
def test_sorts_as_the_standard_library(driver, keys, order):
    """Fibers go on in random order between barriers, so that a missing one is seen."""
    done = driver("--sort", keys, FG_HOST_CUDA_ORDER=order)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("ok") == 10


def test_times_every_part(driver):
    done = driver("--time", 20, 24, 3, 2)
    assert done.returncode == 0, done.stdout
    times = [line for line in done.stdout.splitlines() if line.endswith("us by stream")]
    assert len(times) == 7
