"""Differentiable 3D Gaussian splatting: `project`, `rasterize`, and `render` for both at once."""

from fg3dgs_jax.native import available_backends
from fg3dgs_jax.rasterizer.blending import default_capacity, rasterize, render
from fg3dgs_jax.rasterizer.capacity import CapacityMonitor, suggest_capacity
from fg3dgs_jax.rasterizer.projection import project
from fg3dgs_jax.rasterizer.types import Projection, RasterAux, RenderOutput
from fg3dgs_jax.types import Camera

__all__ = [
    "Camera",
    "CapacityMonitor",
    "Projection",
    "RasterAux",
    "RenderOutput",
    "available_backends",
    "default_capacity",
    "project",
    "rasterize",
    "render",
    "suggest_capacity",
]
