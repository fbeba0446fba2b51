"""Random scenes for the rasterizer's tests, and the loss that exercises every output."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax.types import Camera


class Scene(NamedTuple):
    means: jax.Array  # [..., N, 3] metres
    quats: jax.Array  # [..., N, 4]
    scales: jax.Array  # [..., N, 3] metres
    opacities: jax.Array  # [..., N]
    colors: jax.Array  # [..., N, D]
    background: jax.Array  # [..., D]
    camera: Camera


def make_scene(n, width, height, seed=0, channels=3, sigma_px=(0.7, 4.0), batch=()):
    """n Gaussians before a slightly turned camera with fx != fy and its centre off the middle."""
    rng = np.random.default_rng(seed)
    shape = (*batch, n)
    focal = 1.3 * width
    depth = rng.uniform(0.8, 1.4, shape)
    x = rng.uniform(-0.45, 0.45, shape) * width / focal * depth
    y = rng.uniform(-0.45, 0.45, shape) * height / focal * depth
    scales = np.exp(rng.uniform(*np.log(sigma_px), (*shape, 3))) / focal
    world_to_camera = np.eye(4)
    world_to_camera[:3, :3] = rotation_about([0.3, 1.0, -0.2], 0.2)
    world_to_camera[:3, 3] = [0.02, -0.01, 1.0]
    seen = np.stack([x, y, depth], -1)
    means = (seen - world_to_camera[:3, 3]) @ world_to_camera[:3, :3]
    arrays = (
        means,
        rng.normal(size=(*shape, 4)),
        scales,
        rng.uniform(0.05, 1.0, shape),
        rng.uniform(0.0, 1.0, (*shape, channels)),
        rng.uniform(0.0, 1.0, (*batch, channels)),
    )
    intrinsics = (focal, 1.1 * focal, 0.52 * width, 0.47 * height)
    camera = Camera(jnp.float32(world_to_camera), *map(jnp.float32, intrinsics))
    return Scene(*map(jnp.float32, arrays), camera)


def rotation_about(axis, angle):
    """[3, 3] float64 rotation by `angle` radians (Rodrigues)."""
    x, y, z = np.asarray(axis, np.float64) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


@partial(jax.jit, static_argnums=(0, 2, 3))
def draw(backend, scene, width, height, probe=None):
    """(projection, output) of a backend, hashable, with project and rasterize."""
    projection = backend.project(
        scene.means,
        scene.quats,
        scene.scales,
        scene.opacities,
        scene.camera,
        width=width,
        height=height,
    )
    if probe is not None:
        projection = projection._replace(means2d=projection.means2d + probe)
    output = backend.rasterize(
        projection,
        scene.colors,
        scene.opacities,
        width=width,
        height=height,
        background=scene.background,
    )
    return projection, output


def loss(output):
    """Weighs every pixel of image and alpha differently: no gradient cancels by symmetry."""
    height, width = output.alpha.shape[-2:]
    ramp = jnp.linspace(0.3, 1.0, height)[:, None] * jnp.linspace(1.0, 0.4, width)
    image = jnp.mean(ramp[..., None] * (output.image - 0.3) ** 2)
    return image + jnp.mean(ramp * jnp.sin(2.0 * output.alpha))


def relative(found, expected):
    """Relative L2 distance of two arrays."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-12)
