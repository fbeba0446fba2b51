"""What XLA makes of the train steps of configs/obama.py for an H200, on a machine without one."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

from fg3dgs_jax import native

ROOT = pathlib.Path(__file__).parents[2]
PLUGIN = pathlib.Path(sys.prefix) / "test_cuda"  # where scripts/test.sh puts it
CASES = ("static", "motion", "motion_lpips", "fusion", "alignment")
# cuDNN's convolutions, of LPIPS and the lip-sync expert, are nothing that XLA puts into a graph.
CONVOLVED = ("motion_lpips", "alignment")
# Kernels and copies of a step, and MB that it takes besides clip and state. As compiled by JAX
# 0.10.2 and 0.12.0.1, and a tenth more.
MOST = {
    "static": (66, 50),
    "motion": (440, 190),
    "motion_lpips": (650, 195),
    "fusion": (121, 50),
    "alignment": (420, 405),
}

pytestmark = [
    pytest.mark.aot,
    pytest.mark.skipif(
        native.library_path("cuda") is None, reason="libfg3dgs_cuda is not built (it needs nvcc)"
    ),
    pytest.mark.skipif(
        not (importlib.util.find_spec("jax_cuda13_plugin") or PLUGIN.is_dir()),
        reason="JAX's CUDA plugin is not here: bash scripts/test.sh aot",
    ),
]


def run(*arguments):
    """What a process with JAX's CUDA plugin prints; this one has none and flags of its own."""
    paths = (PLUGIN, ROOT, ROOT / "scripts", os.environ.get("PYTHONPATH", ""))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "XLA_FLAGS": ""}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """{case: what was counted}."""
    path = tmp_path_factory.mktemp("aot") / "compiled.json"
    run("scripts/compile_for_gpu.py", "--config", "configs/obama.py", "--out", path)
    return json.loads(path.read_text())["cases"]


@pytest.mark.parametrize("case", CASES)
def test_our_calls_stand_in_graphs(compiled, case):
    step = compiled[case]["step"]
    assert step["calls"] >= 12  # of three regions: project and rasterize, forward and back
    assert "kCustomCall" not in step["outside"]


@pytest.mark.parametrize("case", sorted(set(CASES) - set(CONVOLVED)))
def test_a_step_is_one_graph(compiled, case):
    step = compiled[case]["step"]
    assert step["outside"] == {}, "the host launches these one by one"
    assert step["graphs"] == 1


@pytest.mark.parametrize("case", CASES)
def test_no_step_waits_for_the_host(compiled, case):
    assert compiled[case]["step"]["waits"] == 0


@pytest.mark.parametrize("case", CASES)
def test_a_step_stays_small(compiled, case):
    nodes, megabytes = MOST[case]
    step = compiled[case]["step"]
    assert step["kernels"] + step["copies"] <= nodes
    assert step["others"] == {}, "kinds of thunks that compile_for_gpu.py does not know"
    assert compiled[case]["temporary_bytes"] <= 1e6 * megabytes


BROKEN = """
import json
import compile_for_gpu as gpu
import jax, jax.numpy as jnp

def whole(x, i):
    return jnp.tanh(x @ x) @ jnp.cos(x) @ jnp.sin(x) @ jnp.tanh(x) @ x

def conditional(x, i):
    def convolved():
        picture = x.reshape(1, 128, 128, 1)
        kernel = jnp.ones((3, 3, 1, 1))
        return jax.lax.conv_general_dilated(
            picture, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ).reshape(128, 128)
    return whole(x, i) + jax.lax.cond(i > 2, convolved, lambda: jnp.zeros_like(x))

def call(x, i):  # cuSOLVER's lacks the trait that lets a call stand in a graph
    return whole(jnp.linalg.eigh(whole(x, i))[1], i)

def counts(step):
    def many(x):
        return jax.lax.scan(lambda x, i: (step(x, i), None), x, jnp.arange(5))[0]
    mapped = jax.pmap(many, devices=gpu.chip())
    program, listed, _ = gpu.compile_(mapped.lower(gpu.shape(1, 128, 128)))
    return gpu.count(gpu.step_of(gpu.tree(listed)))

print(json.dumps({f.__name__: counts(f) for f in (whole, conditional, call)}))
"""


def test_a_step_that_waits_or_falls_apart_is_seen():
    found = json.loads(run("-c", BROKEN).splitlines()[-1])
    assert found["whole"]["waits"] == 0 and found["whole"]["outside"] == {}
    assert found["whole"]["graphs"] == 1
    assert found["conditional"]["waits"] == 1 and found["conditional"]["outside"]
    assert found["call"]["outside"].get("kCustomCall") == 1
