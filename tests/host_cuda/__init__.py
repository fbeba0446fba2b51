"""Runs the CUDA kernels on the host: `build` makes a library of them, the plugin registers it."""

import os
import shutil
import subprocess
from importlib import util
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "fg3dgs_jax"
NATIVE = PACKAGE / "native"
COMPILER = os.environ.get("CXX", "c++")
FLAGS = "-std=c++17 -O2 -fPIC -shared -ffp-contract=off -Wall -Wno-return-type -Wno-unknown-pragmas"


def missing() -> str:
    """Why the kernels cannot be built here; empty if they can."""
    if shutil.which(COMPILER) is None:
        return f"no C++ compiler ({COMPILER})"
    if not (NATIVE / "cuda").is_dir():
        return "the CUDA sources are not in this installation"
    return ""


def build(folder: Path) -> None:
    """Makes folder/libfg3dgs_cuda.so of the CUDA sources and this folder's stand-ins."""
    here = Path(__file__).parent
    sources = sorted((NATIVE / "cuda").glob("*.c[cu]"))
    sources = [path for path in sources if path.name != "sort.cu"] + [here / "sort.cc"]
    jaxlib = Path(util.find_spec("jaxlib").submodule_search_locations[0]) / "include"
    includes = [f"-I{path}" for path in (here, NATIVE)] + ["-isystem", str(jaxlib)]
    command = [COMPILER, *FLAGS.split(), *includes, "-include", str(here / "stream.h"), "-x", "c++"]
    output = ["-o", str(folder / "libfg3dgs_cuda.so")]
    done = subprocess.run([*command, *map(str, sources), *output], capture_output=True, text=True)
    if done.returncode or "warning" in done.stderr:
        raise RuntimeError(f"the kernels do not compile cleanly for the host:\n{done.stderr}")
