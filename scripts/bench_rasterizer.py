"""Times the rasterizer: `python scripts/bench_rasterizer.py` prints a JSON line a case.

Median milliseconds a call of the picture alone and with all gradients, inputs on the device; a
case is N Gaussians of sigma 0.5-1 px (small) or 1.5-3 px (large), uniform in a square picture.
"""

import argparse
import json
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax import native, rasterizer

SIGMAS = {"small": (0.5, 1.0), "large": (1.5, 3.0)}  # px


def make_case(n, size, sigma_px, batch):
    """Arguments of `render` at 1 m before the camera, each image with geometry of its own."""
    rng = np.random.default_rng(0)
    focal = 1.2 * size
    half = 0.5 * size / focal
    means = rng.uniform([-half, -half, 0.9], [half, half, 1.1], (batch, n, 3))
    scales = rng.uniform(*sigma_px, (batch, n, 3)) / focal
    arrays = (means, rng.normal(size=(batch, n, 4)), scales, rng.uniform(0.1, 1.0, (batch, n)))
    arrays = (*arrays, rng.uniform(size=(1, n, 3)))
    camera = rasterizer.Camera(jnp.eye(4), *map(jnp.float32, (focal, focal, size / 2, size / 2)))
    return tuple(jnp.asarray(x, jnp.float32) for x in arrays), camera


def median_ms(function, arguments, calls):
    jax.block_until_ready(function(*arguments))  # compiles
    times = []
    for _ in range(calls):
        begin = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(1e3 * (time.perf_counter() - begin))
    return round(statistics.median(times), 4)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="auto", choices=native.BACKENDS)
    parser.add_argument("--gaussians", type=int, default=50_000)
    parser.add_argument("--size", type=int, default=512, help="pixels a side")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--calls", type=int, default=50, help="timed calls a case")
    flags = parser.parse_args()

    for name, sigma_px in SIGMAS.items():
        for batch in flags.batches:
            arrays, camera = make_case(flags.gaussians, flags.size, sigma_px, batch)
            options = dict(width=flags.size, height=flags.size, backend=flags.backend)

            def picture(*arrays, camera=camera, options=options):
                return rasterizer.render(*arrays, camera, **options)

            def loss(*arrays, picture=picture):
                return jnp.mean(jnp.square(picture(*arrays).image - 0.5))

            forward = jax.jit(picture)
            backward = jax.jit(jax.grad(loss, tuple(range(5))))
            result = {
                "backend": native.resolve_backend(flags.backend),
                "device": jax.devices()[0].device_kind,
                "case": name,
                "gaussians": flags.gaussians,
                "size": flags.size,
                "batch": batch,
                "pairs": int(forward(*arrays).aux.n_isects.mean()),
                "forward_ms": median_ms(forward, arrays, flags.calls),
                "gradients_ms": median_ms(backward, arrays, flags.calls),
            }
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
