"""Differentiable 3D Gaussian splatting: `project`, `rasterize`, and `render` for both at once."""

from fg3dgs_jax.native import available_backends
from fg3dgs_jax.rasterizer.blending import rasterize, render
from fg3dgs_jax.rasterizer.projection import project
from fg3dgs_jax.rasterizer.types import Projection, RasterAux, RenderOutput
from fg3dgs_jax.types import Camera

__all__ = [
    "Camera",
    "Projection",
    "RasterAux",
    "RenderOutput",
    "available_backends",
    "project",
    "rasterize",
    "render",
]
