"""Runs the CUDA kernels on the host: `build` makes a library of them, the plugin registers it.

`driver.cu` runs the rasterizer's without JAX, on a GPU or here.
"""

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from importlib import util
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PACKAGE = ROOT / "fg3dgs_jax"
NATIVE = PACKAGE / "native"
COMPILER = os.environ.get("CXX", "c++")
FLAGS = "-std=c++17 -O2 -ffp-contract=off -Wall -Wno-return-type -Wno-unknown-pragmas"


def missing() -> str:
    """Why the kernels cannot be built here; empty if they can."""
    if shutil.which(COMPILER) is None:
        return f"no C++ compiler ({COMPILER})"
    if not (NATIVE / "cuda").is_dir():
        return "the CUDA sources are not in this installation"
    return ""


def build(folder: Path) -> None:
    """Makes folder/libfg3dgs_cuda.so of the CUDA sources and this folder's stand-ins."""
    jaxlib = Path(util.find_spec("jaxlib").submodule_search_locations[0]) / "include"
    options = ("-fPIC", "-shared", "-isystem", str(jaxlib), "-include", str(HERE / "stream.h"))
    _compile(folder / "libfg3dgs_cuda.so", (NATIVE / "cuda").glob("*.c[cu]"), options)


def build_driver(path: Path) -> None:
    """Makes the program `path` of driver.cu and the CUDA sources it calls."""
    _compile(path, [HERE / "driver.cu", *(NATIVE / "cuda").glob("*.cu")])


def _compile(output: Path, sources: Iterable[Path], options: Sequence[str] = ()) -> None:
    includes = [f"-I{path}" for path in (HERE, NATIVE)]
    command = [
        COMPILER,
        *FLAGS.split(),
        *includes,
        *options,
        "-x",
        "c++",
        *map(str, sorted(sources)),
    ]
    done = subprocess.run([*command, "-o", str(output)], capture_output=True, text=True)
    if done.returncode or "warning" in done.stderr:
        raise RuntimeError(f"the kernels do not compile cleanly for the host:\n{done.stderr}")
