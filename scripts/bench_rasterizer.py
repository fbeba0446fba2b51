"""Times the rasterizer beside others, on the same scenes in the same run.

    python scripts/bench_rasterizer.py [--cases 20000x256 100000x512] [--out bench.json]

Milliseconds a call, inputs on the device, of the pictures alone and of all gradients (which draw
the pictures too). Short calls are timed in a row: of a JAX function as one scan, of torch's without
waiting in between. Footprints: sigma 0.5-1 px (small), 1.5-3 px (large), uniform in the picture, or
1.5-3 px on the front of an ellipsoid (head). Each other rasterizer that is installed is first
compared with ours, and not timed where it disagrees: `pip install gsplat==1.5.3` and, for splax,
`pip install --no-deps splax==0.2.3 warp-lang==1.19.0 scipy plyfile imageio`.
"""

import argparse
import json
import os
import statistics
import sys
import time

os.environ.setdefault("SCIPY_ARRAY_API", "1")  # splax asks for it before scipy is imported

import jax
import jax.numpy as jnp
import numpy as np
import peers

from fg3dgs_jax import native, rasterizer

SIGMAS = {"small": (0.5, 1.0), "large": (1.5, 3.0), "head": (1.5, 3.0)}  # px
MOST_SAMPLES, MOST_IN_A_ROW = 50, 100
SAMPLE_SECONDS = 0.02  # about so long is a sample
# What counts as the same picture: a pair at a threshold, or two at one depth, may go either way.
IMAGE_LIMIT, GRADIENT_LIMIT = 2e-2, 5e-3  # max |difference|, relative L2
REFERENCE_PAIRS = 3e8  # pixels x Gaussians that plain JAX can hold and wait for


def make_scene(n, size, footprint, batch):
    """A `peers.Scene` 1 m before the camera, each picture with geometry of its own."""
    rng = np.random.default_rng(0)
    focal = 1.2 * size
    if footprint == "head":
        points = rng.normal(size=(batch, n, 3))
        points /= np.linalg.norm(points, axis=-1, keepdims=True)
        points *= 0.3, 0.4, -0.1  # of the picture's side; the front, seen from outside
        offset, depth = points[..., :2], 1.0 - np.abs(points[..., 2])
    else:
        offset = rng.uniform(-0.5, 0.5, (batch, n, 2))
        depth = rng.uniform(0.9, 1.1, (batch, n))
    metres = (depth / focal)[..., None]  # of a pixel at that depth
    arrays = (
        np.concatenate([offset * size * metres, depth[..., None]], -1),
        rng.normal(size=(batch, n, 4)),
        rng.uniform(*SIGMAS[footprint], (batch, n, 3)) * metres,
        rng.uniform(0.1, 0.98, (batch, n)),
        rng.uniform(size=(batch, n, 3)),
    )
    intrinsics = (focal, focal, size / 2, size / 2)
    return peers.Scene(
        *map(np.float32, arrays), np.eye(4, dtype=np.float32), intrinsics, size, size
    )


def ours(scene, backend="auto"):
    """(picture, gradients) of this package as in `peers`, and what counts its pairs with tiles."""
    camera = rasterizer.Camera(jnp.eye(4), *map(jnp.float32, scene.intrinsics))
    arrays = [jnp.asarray(x) for x in scene.arrays]

    @jax.jit
    def draw(*arrays):
        return rasterizer.render(
            *arrays, camera, width=scene.width, height=scene.height, backend=backend
        )

    picture, gradients = peers.jax_calls(jax.jit(lambda *x: draw(*x).image), arrays)
    return picture, gradients, lambda: int(draw(*arrays).aux.n_isects.mean())


def disagreement(found, expected):
    """(max |difference| of the pictures, largest relative L2 of a gradient) of (picture, gradients)
    results."""
    image = np.abs(np.asarray(found[0]) - np.asarray(expected[0])).max()
    relative = [
        np.linalg.norm(np.asarray(x) - np.asarray(y)) / np.linalg.norm(np.asarray(y))
        for x, y in zip(found[1], expected[1], strict=True)
    ]
    return float(image), float(max(relative))


def milliseconds(call, budget):
    """Median and spread of a `peers.Call`, within `budget` seconds or of one sample at least.

    A sample is so many calls in a row that starting and waiting for them does not count, one at
    least.
    """
    begin = time.perf_counter()
    call()
    row = max(1, min(MOST_IN_A_ROW, round(SAMPLE_SECONDS / (time.perf_counter() - begin))))
    if row > 1:
        call.many(row)  # compiles
    times = []
    while not times or (len(times) < MOST_SAMPLES and row * sum(times) < budget):
        begin = time.perf_counter()
        call.many(row) if row > 1 else call()
        times.append((time.perf_counter() - begin) / row)
    low, median, high = min(times), statistics.median(times), max(times)
    quartiles = statistics.quantiles(times, n=4) if len(times) > 1 else [median] * 3
    values = dict(median=median, min=low, max=high, q1=quartiles[0], q3=quartiles[2])
    counts = {"samples": len(times), "calls_in_a_row": row}
    return {k: round(1e3 * v, 4) for k, v in values.items()} | counts


def measure(functions, budget, expected=None):
    """A row's figures, and the results of (picture, gradients), compared with `expected` ones."""
    results, row = tuple(f() for f in functions), {}  # these calls compile
    if expected is not None:
        off = disagreement(results, expected)
        row = {"image_max_abs": off[0], "gradients_relative_l2": off[1]}
        if not (off[0] <= IMAGE_LIMIT and off[1] <= GRADIENT_LIMIT):
            return row | {"refused": "another picture or other gradients than ours"}, results
    row["forward_ms"] = milliseconds(functions[0], budget)
    row["gradients_ms"] = milliseconds(functions[1], budget)
    return row, results


def run_case(n, size, footprint, batch, flags, others, seconds):
    """Yields the rows of one case: ours first, then the others. `seconds` remembers a picture of
    each, so that a batch that would take many times the budget is left out."""
    scene = make_scene(n, size, footprint, batch)
    case = dict(gaussians=n, size=size, footprint=footprint, batch=batch)
    *functions, pairs = ours(scene, flags.backend)
    row, expected = measure(functions, flags.budget)
    name = native.resolve_backend(flags.backend)
    yield case | {"name": f"ours ({name})", "pairs": pairs()} | row
    if name != "reference" and batch * n * size**2 <= REFERENCE_PAIRS:
        row, _ = measure(ours(scene, "reference")[:2], flags.budget, expected)
        yield case | {"name": "ours (reference)"} | row
    for name, peer in others.items():
        key = (name, n, size, footprint)
        if batch * seconds.get(key, 0.0) > 3.0 * flags.budget:
            row = {"refused": f"about {batch * seconds[key]:.0f} s a call; --budget is less"}
        else:
            row, _ = measure(peer(scene), flags.budget, expected)
            if "gradients_ms" in row:
                seconds[key] = row["gradients_ms"]["median"] / 1e3 / batch
        yield case | {"name": name} | row


def line(row, base):
    """A row of the table; `base`: the row of ours in the same case."""
    if "refused" in row:
        return f"  {row['name']:18s} not timed: {row['refused']}{compared(row)}"
    text = f"  {row['name']:18s}"
    for key in ("forward_ms", "gradients_ms"):
        t = row[key]
        ratio = t["median"] / base[key]["median"]
        text += f" {t['median']:10.2f} [{t['min']:.2f}-{t['max']:.2f}] x{ratio:<6.1f}"
    return text + compared(row)


def compared(row):
    if "image_max_abs" not in row:
        return ""
    return f"  off by {row['image_max_abs']:.0e}, gradients {row['gradients_relative_l2']:.0e}"


def installed(names):
    """{name: peer} of those that can run here; a line about each of the others."""
    known = peers.GPU if jax.default_backend() == "gpu" else peers.CPU
    found = {}
    for name in known if names is None else names:
        if name not in known:
            raise SystemExit(f"--peers {name} is unknown here; expected some of {', '.join(known)}")
        try:
            peer = known[name]
            peer(make_scene(64, 32, "large", 1))[1]()  # what is compiled once is compiled here
            found[name] = peer
        except peers.NotInstalled as missing:
            print(f"{name}: {missing}", flush=True)
        except Exception as error:  # its own affair, which must not cost us our figures
            told = str(error).strip().splitlines() or [type(error).__name__]
            print(f"{name}: does not run here: {told[0]}", flush=True)
    return found


def peak_memory(n, size):
    """MB that a picture and its gradients take beyond their inputs, at their peak, on a CPU.

    The peak of a process never falls, so a small case first takes what any case takes.
    """

    def peak():
        with open("/proc/self/status") as file:
            rows = dict(row.split(":", 1) for row in file)
        return int(rows["VmHWM"].split()[0]) / 1024

    for f in ours(make_scene(64, 64, "large", 1))[:2]:
        f()
    scene = make_scene(n, size, "large", 1)
    functions = ours(scene)[:2]
    before = peak()
    for f in functions:
        f()
    inputs = sum(x.nbytes for x in scene.arrays) / 2**20
    return dict(gaussians=n, size=size, beyond_inputs_mb=round(peak() - before), inputs_mb=inputs)


def case_of(text):
    """(Gaussians, side in px) of "20000x256"."""
    n, size = map(int, text.split("x"))
    return n, size


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", default="auto", choices=native.BACKENDS)
    parser.add_argument(
        "--cases",
        type=case_of,
        nargs="+",
        metavar="NxSIZE",
        help="Gaussians x pixels a side",
        default=[(2000, 128), (20_000, 256), (50_000, 512)],
    )
    parser.add_argument("--footprints", nargs="+", default=list(SIGMAS), choices=list(SIGMAS))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--peers", nargs="*", help="default: every one that is installed")
    parser.add_argument("--budget", type=float, default=3.0, help="seconds a function and case")
    parser.add_argument("--out", help="JSON file of all figures")
    parser.add_argument(
        "--memory", action="store_true", help="instead: peak memory of each case, on a CPU"
    )
    flags = parser.parse_args()
    if flags.memory:
        if native.resolve_backend(flags.backend) != "cpu":
            sys.exit("--memory is of the cpu backend; set JAX_PLATFORMS=cpu")
        rows = [peak_memory(*case) for case in flags.cases]
        for row in rows:
            print(json.dumps(row))
    else:
        rows, seconds = [], {}
        others = installed(flags.peers)
        for n, size in flags.cases:
            for footprint in flags.footprints:
                for batch in flags.batches:
                    case = run_case(n, size, footprint, batch, flags, others, seconds)
                    for number, row in enumerate(case):
                        if number == 0:
                            base = row
                            print(
                                f"{n} Gaussians, {size} px, {footprint}, batch {batch}, "
                                f"{row['pairs']} pairs: ms of pictures, of gradients"
                            )
                        print(line(row, base), flush=True)
                        rows.append(row)
    if flags.out:
        machine = dict(
            device=jax.devices()[0].device_kind,
            cores=len(os.sched_getaffinity(0)),
            jax=jax.__version__,
        )
        with open(flags.out, "w") as file:
            json.dump({**machine, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
