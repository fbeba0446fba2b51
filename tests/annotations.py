"""The run-time checker of annotated shapes, for jaxtyping's import hook (conftest.py)."""

from collections.abc import Callable
from typing import Any

import beartype

# Doors that check their arguments themselves, with messages that tests expect.
DOORS = frozenset(
    f"fg3dgs_jax.rasterizer.{name}"
    for name in (
        "types.check_camera",
        "types.check_gaussians",
        "types.check_rasterize",
        "types.check_size",
        "blending.rasterize",
        "blending.render",
        "projection.project",
        "reference.project",
        "reference.rasterize",
        "sh.eval_sh",
    )
)


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """beartype, but for the doors."""
    if f"{function.__module__}.{function.__qualname__}" in DOORS:
        return function
    return beartype.beartype(function)
