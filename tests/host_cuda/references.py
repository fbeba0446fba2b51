"""Writes the files that `driver.cu` compares with: scenes, and what plain JAX draws of them.

    python -m tests.host_cuda.references FOLDER

The numbers of a file follow each other without names, in the order of `driver.cu`.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax import rasterizer
from tests.rasterizer.scenes import make_scene

MAGIC = 0x3147524453334746  # "FG3SDRG1"


class Case(NamedTuple):
    n: int
    width: int
    height: int
    channels: int
    batch: int
    sigma_px: tuple[float, float] = (0.7, 4.0)


CASES = {
    "nothing": Case(0, 40, 24, 3, 1),
    "one": Case(1, 33, 17, 5, 1),
    "batch": Case(300, 48, 40, 3, 3),
    "many_channels": Case(60, 40, 24, 32, 2),
    "eight_channels": Case(100, 40, 24, 8, 2),
    "crowded": Case(6000, 64, 64, 3, 1, (0.5, 1.0)),  # lists of more than one block of Gaussians
    "large": Case(40, 96, 80, 4, 2, (10.0, 30.0)),  # a Gaussian in more tiles than a warp has lanes
}


def write(path: Path, case: Case, backend: str = "reference") -> None:
    """Writes one file: a scene, its picture and gradients as `backend` computes them."""
    n, width, height, channels, batch, sigma_px = case
    scene = make_scene(n, width, height, 5, channels, sigma_px, (batch,))
    rng = np.random.default_rng(6)
    v_image = rng.normal(scale=1e-3, size=(batch, height, width, channels)).astype(np.float32)
    v_alpha = rng.normal(scale=1e-3, size=(batch, height, width)).astype(np.float32)
    pose = jnp.broadcast_to(scene.camera.world_to_camera, (batch, 4, 4))
    intrinsics = np.broadcast_to(np.stack(scene.camera[1:]), (batch, 4))
    draw = partial(rasterizer.render, width=width, height=height, backend=backend)

    def picture(means, quats, scales, colors, opacities, background, pose):
        camera = scene.camera._replace(world_to_camera=pose)
        out = draw(means, quats, scales, opacities, colors, camera, background=background)
        return (out.image, out.alpha), out.aux.n_isects

    arrays = (scene.means, scene.quats, scene.scales, scene.colors, scene.opacities)
    arrays = (*arrays, scene.background, pose)

    @jax.jit
    def run(*arrays):
        (image, alpha), pullback, pairs = jax.vjp(picture, *arrays, has_aux=True)
        return image, alpha, pullback((v_image, v_alpha)), pairs

    image, alpha, gradients, pairs = run(*arrays)
    means, quats, scales, colors, opacities, background, _ = arrays
    inputs = (means, quats, scales, opacities, colors, background, pose, intrinsics)
    numbers = (*inputs, v_image, v_alpha, image, alpha, *gradients, pairs)
    head = np.array(
        [MAGIC, batch, n, width, height, channels, max(1, int(np.max(pairs)))], np.int64
    )
    floats = [np.asarray(x, np.float32).tobytes() for x in numbers]
    path.write_bytes(head.tobytes() + b"".join(floats))


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the files of references.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, case in CASES.items():
        write(folder / f"{name}.ref", case)
        print(folder / f"{name}.ref", flush=True)


if __name__ == "__main__":
    main()
