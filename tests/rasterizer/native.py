"""The native backend under test with the reference's signatures, and the mark of tests of it.

FG3DGS_BACKEND=cuda tests the CUDA kernels instead of the CPU's: on a machine with a GPU, or on the
host's stand-in for one (tests/host_cuda).
"""

import os
from functools import partial
from typing import NamedTuple

import pytest

from fg3dgs_jax import native, rasterizer

BACKEND = "cuda" if os.environ.get("FG3DGS_BACKEND") == "cuda" else "cpu"


class Backend(NamedTuple):
    project: object
    rasterize: object


NATIVE = Backend(
    *(partial(part, backend=BACKEND) for part in (rasterizer.project, rasterizer.rasterize))
)
needs_native = pytest.mark.skipif(
    not native.has_targets("rasterizer", BACKEND),
    reason=f"libfg3dgs_{BACKEND} is not built (pip install -e .)",
)
