"""Settings that must stand before JAX starts and before a module is imported.

Tests run each program once, so that compiling it well costs more than it saves. Annotated shapes
are checked as the functions run.
"""

import importlib.metadata
import os

import jaxtyping
import pytest

from tests import annotations

# Modules whose annotations are checked, with all modules below them.
_CHECKED = (
    "fg3dgs_jax.geometry",
    "fg3dgs_jax.rasterizer",
    "fg3dgs_jax.models",
    "fg3dgs_jax.training.losses",
    "fg3dgs_jax.avatar",
)
jaxtyping.install_import_hook(_CHECKED, f"{annotations.__name__}.check")

_CHEAP = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
if importlib.metadata.version("jaxlib").startswith("0.10."):  # a flag that is not known is fatal
    _CHEAP += " --xla_cpu_use_fusion_emitters=false"  # a third of the time that compiling takes
os.environ["XLA_FLAGS"] = f"{_CHEAP} {os.environ.get('XLA_FLAGS', '')}".strip()

# Programs whose main() a test calls would keep what they compile in the user's cache.
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")


@pytest.fixture(autouse=True, scope="module")
def _compiled_programs_are_forgotten():
    """After each module, whose programs no other uses; together they are gigabytes."""
    yield
    import jax

    jax.clear_caches()


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The processed folder of a painted head."""
    from tests import painted

    path = tmp_path_factory.mktemp("painted")
    painted.paint(path)
    return path


@pytest.fixture(scope="session")
def subject(tmp_path_factory):
    """The processed folder of 2.4 s of the embedded subject at 128 px; its sound is told by its
    loudness, [T, 1, 1].
    """
    import numpy as np

    from fg3dgs_jax.synthetic import subject as subject_lib

    def loud(samples, num_frames):
        return np.abs(samples.reshape(num_frames, 1, -1)).mean(-1, keepdims=True)

    path = tmp_path_factory.mktemp("synthetic") / "subject"
    return subject_lib.make_clip(path, seed=3, seconds=2.4, size=128, features={"loud": loud})
