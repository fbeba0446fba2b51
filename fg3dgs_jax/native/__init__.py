"""Finds the compiled libraries, registers their XLA FFI handlers once, and chooses the backend.

One library per platform (libfg3dgs_cpu, libfg3dgs_cuda) holds every custom call of the package; a
handler's C symbol is its target name, and the name is the same on both platforms, so that callers
never ask where they run.
"""

import ctypes
import functools
import os
import sys
import warnings
from pathlib import Path

import jax

# What each part of the package calls. A library built before a target existed simply lacks it.
TARGETS = {
    "rasterizer": (
        "fg3dgs_project_fwd",
        "fg3dgs_project_bwd",
        "fg3dgs_rasterize_fwd",
        "fg3dgs_rasterize_bwd",
    ),
    "hash_encoding": ("fg3dgs_encode_fwd", "fg3dgs_encode_bwd"),
    "ssim": ("fg3dgs_ssim",),
    "adam": ("fg3dgs_adam",),  # CUDA only
}
PLATFORMS = {"cpu": "cpu", "cuda": "CUDA"}  # our backend's name -> XLA's platform name
BACKENDS = ("auto", "cuda", "cpu", "reference")
BUILD_COMMAND = "pip install -e . (in the checkout; needs a C++17 compiler)"


def _search_dirs() -> list[Path]:
    """Folders that may hold a library, best first.

    FG3DGS_NATIVE_DIR, then the package (a wheel), then sys.path. In an editable install the
    checkout holds the Python files and site-packages the library.
    """
    dirs = [Path(d) for d in [os.environ.get("FG3DGS_NATIVE_DIR")] if d]
    dirs.append(Path(__file__).parents[1] / "_native")
    dirs += [Path(entry or ".") / "fg3dgs_jax" / "_native" for entry in sys.path]
    return dirs


def library_path(backend: str) -> Path | None:
    """Path of the library of "cpu" or "cuda", or None where it is not built."""
    for folder in _search_dirs():
        path = folder / f"libfg3dgs_{backend}.so"
        if path.is_file():
            return path
    return None


@functools.cache
def _register(backend: str) -> frozenset[str]:
    """Loads one library and registers its handlers with XLA. Returns the names of those it has."""
    path = library_path(backend)
    if path is None:
        return frozenset()
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        warnings.warn(f"{path} does not load ({error}); rebuild it: {BUILD_COMMAND}", stacklevel=2)
        return frozenset()
    targets = [name for group in TARGETS.values() for name in group if hasattr(library, name)]
    try:
        for name in targets:
            handler = jax.ffi.pycapsule(getattr(library, name))
            jax.ffi.register_ffi_target(name, handler, platform=PLATFORMS[backend])
    except RuntimeError as error:  # of XLA: the library was built with the headers of a newer one
        reason = " ".join(str(error).split())
        warnings.warn(
            f"{path} does not fit jax {jax.__version__} ({reason}); rebuild it: {BUILD_COMMAND}",
            stacklevel=2,
        )
        return frozenset()
    return frozenset(targets)


def buffer_bytes(area: str, *sizes: int) -> int:
    """Bytes that one image (or call) of these sizes brings to a buffer of the CUDA library.

    XLA allocates these buffers as results, so that a captured graph holds all it needs.

    Args:
      area: state, bin, blend_grad, project_grad, encode_grad or ssim.
      *sizes: the arguments of the library's function fg3dgs_<area>_bytes.

    Raises:
      ValueError: the CUDA library is not built.
    """
    path = library_path("cuda")
    if path is None:
        raise ValueError(f"libfg3dgs_cuda was not found: {BUILD_COMMAND}")
    function = getattr(ctypes.CDLL(str(path)), f"fg3dgs_{area}_bytes")
    function.argtypes, function.restype = [ctypes.c_int64] * len(sizes), ctypes.c_int64
    return function(*sizes)


def has_targets(group: str, backend: str = "cpu") -> bool:
    """Whether the library of `backend` is built and has all of `group` (a key of TARGETS)."""
    return set(TARGETS[group]) <= _register(backend)


def available_backends(group: str = "rasterizer") -> tuple[str, ...]:
    """Backends that can run `group` here, best first. "reference" (plain JAX) always can."""
    cuda = jax.default_backend() == "gpu" and has_targets(group, "cuda")
    cpu = has_targets(group, "cpu")
    return (*(["cuda"] * cuda), *(["cpu"] * cpu), "reference")


@functools.cache
def _warn_missing(group: str, backend: str) -> None:
    warnings.warn(
        f"no compiled {group} for backend {backend}: falling back to the slow reference; "
        f"build it with {BUILD_COMMAND}",
        stacklevel=3,
    )


def on_gpu() -> bool:
    """Whether a GPU draws: then a program's static numbers are chosen to change seldom."""
    return resolve_backend() == "cuda"


def resolve_backend(requested: str = "auto", group: str = "rasterizer") -> str:
    """Chooses the backend to run: "cpu", "cuda" or "reference".

    "auto" means FG3DGS_BACKEND if that is set, else the compiled one for JAX's default platform,
    else the reference.

    Args:
      requested: one of BACKENDS.
      group: what has to run, a key of TARGETS.

    Raises:
      ValueError: an unknown backend, or one that was named and is not built.
    """
    source = "backend"
    if requested == "auto":
        requested, source = os.environ.get("FG3DGS_BACKEND", "auto") or "auto", "FG3DGS_BACKEND"
    if requested not in BACKENDS:
        raise ValueError(f"{source}={requested!r} is unknown: use one of {', '.join(BACKENDS)}")
    if requested == "reference":
        return requested
    if requested == "auto":
        preferred = {"gpu": "cuda", "cpu": "cpu"}.get(jax.default_backend())
        if preferred is None:  # TPU and others: plain JAX is the only form
            return "reference"
        if has_targets(group, preferred):
            return preferred
        _warn_missing(group, preferred)
        return "reference"
    if not has_targets(group, requested):
        raise ValueError(
            f"{source}={requested!r} but libfg3dgs_{requested} with {group} was not found: "
            f"build it with {BUILD_COMMAND}"
        )
    return requested
