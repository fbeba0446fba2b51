"""Every instruction set this machine has draws the same picture and gradients, to rounding."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from .native import BACKEND, NATIVE, needs_native
from .scenes import draw, loss, make_scene, relative

WIDTH, HEIGHT = 150, 101
SCENES = ({"channels": 3}, {"channels": 7, "sigma_px": (3.0, 12.0)})


def results(number):
    """Picture, alpha, then all gradients of scene `number`, flat."""
    scene = make_scene(700, WIDTH, HEIGHT, seed=number, **SCENES[number])

    def value(scene):
        output = draw(NATIVE, scene, WIDTH, HEIGHT)[1]
        return loss(output), output

    gradients, output = jax.jit(jax.grad(value, has_aux=True))(scene)
    return [np.asarray(x) for x in (output.image, output.alpha, *jax.tree.leaves(gradients))]


@needs_native
@pytest.mark.skipif(BACKEND == "cuda", reason="the CUDA backend has one instruction set")
@pytest.mark.parametrize("isa", ["base", "avx2"])
def test_instruction_sets_agree(isa, tmp_path):
    program = (
        "import sys, numpy as np\n"
        "from tests.rasterizer.test_instruction_sets import SCENES, results\n"
        "for number in range(len(SCENES)):\n"
        "    np.savez(f'{sys.argv[1]}/{number}.npz', *results(number))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "FG3DGS_ISA": isa, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    for number in range(len(SCENES)):
        with np.load(tmp_path / f"{number}.npz") as file:
            found = list(file.values())
        expected = results(number)
        assert len(found) == len(expected)
        for a, b in zip(found[:2], expected[:2], strict=True):
            np.testing.assert_allclose(a, b, atol=2e-6)
        for a, b in zip(found[2:], expected[2:], strict=True):
            if np.linalg.norm(b) > 1e-9:
                assert relative(a, b) <= 1e-5
