"""Tells what is installed, what is missing with the command that mends it, and what it manages.

    python -m fg3dgs_jax.doctor

Needs no network and changes nothing. The exit code is 0 if a video can become an avatar here.
"""

import argparse
import importlib.metadata
import os
import shutil
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from fg3dgs_jax.system import faults, memory

SIZE = 256  # px, of the frames that are timed
POPULATIONS = {"face": 8192, "eyes": 640, "mouth": 1024}  # slots at the size `small`
SECONDS = 4.0  # that frames are drawn for
ROOM = 4e9  # bytes that training at the size `small` takes at its peak


class Finding(NamedTuple):
    """One line of the table."""

    what: str
    state: str  # "ok", "missing" or "note"
    found: str
    remedy: str = ""  # a command or an advice
    vital: bool = False  # nothing works without it


def main(argv: list[str] | None = None) -> int:
    """Prints the table; returns 0, or 1 where something vital is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m fg3dgs_jax.doctor",
        description="Tells what is installed, what is missing, and how fast this machine is.",
    )
    parser.add_argument("--quick", action="store_true", help="leave out the measurement of speed")
    flags = parser.parse_args(argv)

    def work():
        findings = []
        for finding in examine(not flags.quick):
            findings.append(finding)
            print(line(finding), flush=True)
        lacking = [f.what for f in findings if f.vital and f.state == "missing"]
        print(verdict(lacking))
        return int(bool(lacking))

    return faults.run("doctor", work)


def line(finding: Finding) -> str:
    """Returns a finding as one line, and a second with the remedy where there is one."""
    text = f"{finding.state:8}{finding.what:20}{finding.found}"
    return f"{text}\n{'':28}-> {finding.remedy}" if finding.remedy else text


def verdict(lacking: list[str]) -> str:
    """Returns the last line.

    Args:
      lacking: the vital things that are missing.
    """
    if lacking:
        return f"not ready: {', '.join(lacking)} missing"
    return "ready: a video of a person can become a talking avatar here"


def examine(speed: bool = True) -> Iterator[Finding]:
    """Yields what is found, one by one.

    Args:
      speed: also measures how fast frames are drawn.
    """
    yield from _packages()
    yield from _backends()
    yield from _weights()
    yield from _machine()
    if speed:
        yield _speed()


def _packages():
    # Here, because it starts JAX, which --help does not need.
    import jax

    version = ".".join(map(str, sys.version_info[:3]))
    devices = ", ".join(sorted({device.device_kind for device in jax.devices()}))
    yield Finding("Python", "ok", version)
    yield Finding("JAX", "ok", f"{jax.__version__} on {len(jax.devices())} x {devices}")
    extras = {
        "mediapipe": ("preprocess a video, LMD, driven lips", "preprocess", True),
        "h5py": ("BiSeNet's weights as they are published", "preprocess", False),
        "onnxruntime": ("preprocess --emotion emotieff", "emotion", False),
    }
    for name, (use, extra, vital) in extras.items():
        remedy = f"pip install 'fg3dgs_jax[{extra}]'"
        try:
            yield Finding(name, "ok", importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "missing", f"for: {use}", remedy, vital)


def _backends():
    from fg3dgs_jax import native

    chosen = native.resolve_backend()
    if chosen == "reference":
        found = "none is compiled: plain JAX draws, tens of times slower"
        yield Finding("rasterizer", "missing", found, native.BUILD_COMMAND)
    else:
        others = ", ".join(native.available_backends())
        yield Finding("rasterizer", "ok", f"{chosen} (of {others}), {native.library_path(chosen)}")


def _weights():
    from fg3dgs_jax.experts.audio import lip_prior
    from fg3dgs_jax.weights import store

    vital = ("face_landmarker",)
    advised = ("selfie_multiclass", "whisper_tiny_en", "lpips_alex")
    for name in (*vital, *advised):
        path, row = store.find(name), store.REGISTRY[name]
        if path is not None:
            yield Finding(name, "ok", str(path))
        else:
            remedy = f"python -m fg3dgs_jax.weights fetch {name}"
            yield Finding(name, "missing", row.what, remedy, name in vital)
    others = [row for row in store.REGISTRY if row not in (*vital, *advised)]
    have = [name for name in others if store.find(name) is not None]
    found = f"{len(have)} of {len(others)} found: {', '.join(have) or 'none'}"
    yield Finding("other weights", "note", found, "python -m fg3dgs_jax.weights list")
    prior = lip_prior.require()
    if prior == lip_prior.SHIPPED:
        remedy = "python -m fg3dgs_jax.lipsync fit --only prior --data CLIPS --out runs/lips"
        yield Finding("lip prior", "ok", "the package's own, learnt from no person", remedy)
    else:
        yield Finding("lip prior", "ok", f"yours, {prior}")


def _machine():
    from fg3dgs_jax.weights import store

    free = memory.available()
    state, remedy = ("ok", "") if free > ROOM else ("note", "end other programs before training")
    found = f"{free / 1e9:.1f} GB available; training at size small takes {ROOM / 1e9:.0f}"
    yield Finding("memory", state, f"{found}, on {os.cpu_count()} cores", remedy)
    folder = store.cache_folder()
    while not folder.exists():
        folder = folder.parent
    disk = shutil.disk_usage(folder).free
    remedy = "" if disk > 2e9 else f"free some room in {folder}"
    yield Finding("disk", "ok" if disk > 2e9 else "note", f"{disk / 1e9:.0f} GB free", remedy)


def _speed():
    import jax
    import jax.numpy as jnp
    import numpy as np

    from fg3dgs_jax import config as config_lib
    from fg3dgs_jax.avatar import draw, play
    from fg3dgs_jax.models import gaussians as gaussians_lib
    from fg3dgs_jax.types import Camera, Conditions

    config = config_lib.load("tuned,small")
    nets, regions, alive = draw.make_nets(config), {}, {}
    audio, expression = np.zeros((play.BATCH, 8, 1, 3)), np.zeros((play.BATCH, 8))
    for i, (name, slots) in enumerate(POPULATIONS.items()):
        rng = np.random.default_rng(i)
        points = rng.normal(size=(slots, 3)) * (0.06, 0.08, 0.04)
        gaussians, alive[name] = gaussians_lib.init_gaussians_from_points(
            points, rng.random((slots, 3)), slots
        )
        conditions = Conditions(jnp.zeros(audio.shape[1:]), jnp.zeros(expression.shape[1:]))
        variables = nets[name].init(jax.random.key(i), gaussians.means, conditions)
        regions[name] = draw.Region(gaussians, variables)
    avatar = draw.Avatar(config, regions, alive)
    pose = np.tile(np.eye(4, dtype=np.float32), (play.BATCH, 1, 1))
    pose[:, 2, 3] = 0.8
    lens = (np.full(play.BATCH, v, np.float32) for v in (2.5 * SIZE, 2.5 * SIZE, 128, 128))
    camera = Camera(*jax.device_put((pose, *lens)))
    background = np.zeros((play.BATCH, SIZE, SIZE, 3), np.uint8)
    inputs = audio.astype(np.float32), expression.astype(np.float32), camera, background
    begin = time.perf_counter()
    jax.block_until_ready(avatar.draw_pictures(*inputs))
    compiling, count = time.perf_counter() - begin, 0
    begin = time.perf_counter()
    while (spent := time.perf_counter() - begin) < SECONDS:
        jax.block_until_ready(avatar.draw_pictures(*inputs))
        count += play.BATCH
    rate = count / spent
    found = f"{rate:.0f} frames/s of an avatar of size small at {SIZE} px, untrained"
    remedy = "" if rate >= 25 else "below 25: not live; synthesize still works"
    found += f" (compiled in {compiling:.0f} s)"
    return Finding("drawing", "ok" if rate >= 25 else "note", found, remedy)


if __name__ == "__main__":
    sys.exit(main())
