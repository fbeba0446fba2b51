"""What the CPU backend takes for its lists and gradients stays small."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .native import BACKEND, needs_native

ROOT = Path(__file__).parents[2]


@needs_native
@pytest.mark.skipif(BACKEND == "cuda", reason="the CUDA backend's memory is XLA's")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc: peak memory unknown")
def test_a_hundred_thousand_gaussians_fit_in_400_mb():
    """Picture and gradients at 512 px, in a process of its own whose peak is theirs."""
    program = [ROOT / "scripts" / "bench_rasterizer.py", "--memory", "--cases", "100000x512"]
    done = subprocess.run([sys.executable, *program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 0 < json.loads(done.stdout)["beyond_inputs_mb"] < 400
