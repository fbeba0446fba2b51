"""The native CPU backend with the reference's signatures, and the mark of tests that need it."""

import importlib.util
from functools import partial
from typing import NamedTuple

import pytest


class Backend(NamedTuple):
    project: object
    rasterize: object


def _find():
    """The backend, or the reason why there is none."""
    if importlib.util.find_spec("fg3dgs_jax.native") is None:
        return None, "fg3dgs_jax.native is not in this checkout"
    from fg3dgs_jax import native, rasterizer

    if "cpu" not in native.available_backends():
        return None, "the native CPU library is not built (pip install -e .)"
    parts = (rasterizer.project, rasterizer.rasterize)
    return Backend(*(partial(part, backend="cpu") for part in parts)), ""


CPU, REASON = _find()
needs_native = pytest.mark.skipif(CPU is None, reason=REASON)
