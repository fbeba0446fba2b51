"""Settings that must stand before JAX starts: tests run each program once, so that compiling it
well costs more than it saves."""

import os

import pytest

_CHEAP = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ["XLA_FLAGS"] = f"{_CHEAP} {os.environ.get('XLA_FLAGS', '')}".strip()


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
