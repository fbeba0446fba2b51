"""The encoding's custom call against its jnp definition: values 1e-6, gradients 1e-5 relative."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fg3dgs_jax import native
from fg3dgs_jax.config.defaults import Encoding
from fg3dgs_jax.models import hash_encoding, hash_encoding_ffi

needs_native = pytest.mark.skipif(
    not hash_encoding_ffi.is_available(),
    reason="no compiled hash encoding: not built (pip install -e .), or FG3DGS_BACKEND=reference",
)
FACE = hash_encoding.make_levels(Encoding(16, 38.4))
MOUTH = hash_encoding.make_levels(Encoding(64, 57.6))


def make_inputs(levels, n, seed=0):
    """Tables as training makes them; some points lie outside, on the border, on a corner."""
    rng = np.random.default_rng(seed)
    coords = rng.uniform(-1.1 * levels.bound, 1.1 * levels.bound, (n, 3))
    if n >= 4:
        coords[:4] = [[1, 1, 1], [-1, -1, -1], [1, -1, 0], [np.nan, 0, 0]]
        coords[:3] *= levels.bound
    tables = rng.uniform(-0.05, 0.05, levels.num_params)
    return jnp.float32(tables), jnp.float32(coords)


def run(encode, levels, tables, coords):
    """Features and the gradients of a loss that weighs each of them differently."""

    def loss(tables, coords):
        features = encode(tables, coords, levels=levels)
        weights = jnp.sin(jnp.arange(features.size)).reshape(features.shape)
        return jnp.sum(weights * features + 0.5 * features**2), features

    gradients, features = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(tables, coords)
    return features, *gradients


def relative(found, expected):
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-12)


@needs_native
@pytest.mark.parametrize("levels", [FACE, MOUTH], ids=["face", "mouth"])
@pytest.mark.parametrize("n", [0, 1, 2000])
def test_equals_the_definition(levels, n):
    inputs = make_inputs(levels, n)
    found = run(hash_encoding_ffi.encode, levels, *inputs)
    expected = run(hash_encoding.encode, levels, *inputs)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-6)
    for name, x, y in zip(("features", "tables", "coords"), found, expected, strict=True):
        assert x.shape == y.shape, name
        assert relative(x, y) < 1e-5, name


@needs_native
def test_outside_and_nan_points_give_zeros():
    tables, _ = make_inputs(FACE, 0)
    coords = jnp.array([[0.2, 0.0, 0.0], [jnp.nan] * 3, [jnp.inf, 0.2, -jnp.inf]])
    features, v_tables, v_coords = run(hash_encoding_ffi.encode, FACE, tables, coords)
    per_plane = np.asarray(features).reshape(3, 3, 12)
    assert np.any(per_plane[0, 1])  # y and z of the first point are inside
    assert not np.any(per_plane[0, [0, 2]])
    assert not np.any(per_plane[1:])
    assert np.all(np.isfinite(v_tables))
    assert not np.any(v_coords[1:])


@needs_native
def test_vmap_over_something_else_and_over_the_points():
    tables, coords = make_inputs(FACE, 50)
    scale = jnp.array([0.5, 1.0, 2.0])

    def value(encode, scale, coords):
        return jnp.sum((scale * encode(tables, coords, levels=FACE)) ** 2)

    def both(encode, axes, *arrays):
        mapped = jax.vmap(lambda s, c: value(encode, s, c), axes)
        total = lambda *a: jnp.sum(mapped(*a))  # noqa: E731
        return mapped(*arrays), jax.grad(total, 1)(*arrays)

    batch = coords[4:].reshape(2, -1, 3)
    for axes, arrays in [((0, None), (scale, coords[4:])), ((0, 0), (scale[:2], batch))]:
        values, gradient = both(hash_encoding_ffi.encode, axes, *arrays)
        expected_values, expected = both(hash_encoding.encode, axes, *arrays)
        np.testing.assert_allclose(values, expected_values, rtol=1e-5)
        assert relative(gradient, expected) < 1e-5


def digest():
    """Of the features and gradients of one call; also run by the test below in other processes."""
    results = run(hash_encoding_ffi.encode, MOUTH, *make_inputs(MOUTH, 3000, seed=1))
    return hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in results)).hexdigest()


@needs_native
@pytest.mark.skipif(
    native.resolve_backend(group="hash_encoding") == "cuda", reason="CUDA has no workers"
)
def test_worker_count_does_not_change_a_bit():
    root = Path(__file__).parents[2]
    program = "from tests.models.test_hash_encoding_ffi import digest; print(digest(), digest())"
    digests = {digest()}
    for workers in (1, 8):
        environment = {**os.environ, "FG3DGS_NUM_THREADS": str(workers), "JAX_PLATFORMS": "cpu"}
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        digests.update(done.stdout.split())
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("tables", "coords", "message"),
    [
        (jnp.zeros(7), jnp.zeros((4, 3)), "tables are float32"),
        (jnp.zeros(FACE.num_params), jnp.zeros((4, 2)), "expected float32 \\[N, 3\\]"),
        (jnp.zeros(FACE.num_params), jnp.zeros((4, 3), jnp.float16), "coords are float16"),
    ],
)
def test_bad_arguments_are_refused(tables, coords, message):
    with pytest.raises(ValueError, match=message):
        hash_encoding_ffi.encode(tables, coords, levels=FACE)
