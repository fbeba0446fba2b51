"""One, two and eight workers give the same bits, picture and gradients, whatever the schedule."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .native import BACKEND, needs_native

PROGRAM = """
import hashlib
import jax
import numpy as np
from tests.rasterizer.native import NATIVE
from tests.rasterizer.scenes import draw, loss, make_scene

scene = make_scene(500, 150, 100, seed=1, batch=(2,))

def value(scene):
    output = draw(NATIVE, scene, 150, 100)[1]
    return loss(output), output

for _ in range(3):
    results = jax.jit(jax.grad(value, has_aux=True))(scene)
    data = b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(results))
    print(hashlib.sha256(data).hexdigest())
"""


@needs_native
@pytest.mark.skipif(BACKEND == "cuda", reason="the CUDA backend has no workers")
def test_worker_count_does_not_change_a_bit():
    root = Path(__file__).parents[2]
    digests = set()
    for workers in (1, 2, 8):
        environment = {**os.environ, "FG3DGS_NUM_THREADS": str(workers), "JAX_PLATFORMS": "cpu"}
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
        lines = run.stdout.split()
        assert len(lines) == 3
        digests.update(lines)
    assert len(digests) == 1
