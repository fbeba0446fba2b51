"""SSIM's custom call against its jnp definition in double precision, values and gradients."""

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
from fg3dgs_jax.training import losses
from fg3dgs_jax.training.ffi import ssim as ssim_ffi

BACKEND = "cuda" if os.environ.get("FG3DGS_BACKEND") == "cuda" else "cpu"
# FG3DGS_BACKEND=cuda: on a GPU, or on the host's stand-in for one (tests/host_cuda).
needs_native = pytest.mark.skipif(
    not (native.has_targets("ssim", BACKEND) and native.resolve_backend() == BACKEND),
    reason=f"no compiled SSIM: libfg3dgs_{BACKEND} is not built (pip install -e .), or not chosen",
)
needs_cpu = pytest.mark.skipif(BACKEND != "cpu", reason="only the CPU's library has these")


def pictures(height, width, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=(height, width, channels))
    y = np.clip(x + 0.1 * rng.normal(size=x.shape), 0.0, 1.0)
    return x.astype(np.float32), y.astype(np.float32)


def in_boxes(height, width, boxes, color=0.3):
    """Two pictures that differ in some boxes of the same colour only."""
    x, y = np.full((2, height, width, 3), color, np.float32)
    for rows, cols in boxes:
        x[rows, cols], y[rows, cols] = (p[rows, cols] for p in pictures(height, width, seed=1))
    return x, y


CASES = {
    "wide": pictures(33, 61),
    "smaller than the window": pictures(7, 5),
    "one pixel": pictures(1, 1),
    "one channel": pictures(20, 31, 1),
    "five channels": pictures(26, 19, 5),
    "box inside": in_boxes(70, 60, [(slice(30, 37), slice(20, 33))]),
    "corners": in_boxes(64, 80, [(slice(0, 3), slice(0, 4)), (slice(60, 64), slice(77, 80))]),
    "many tiles": pictures(45, 70, 2),
    "boxes far apart": in_boxes(
        90, 140, [(slice(1, 5), slice(2, 9)), (slice(60, 62), slice(99, 101))]
    ),
    "one value": in_boxes(40, 40, [(slice(20, 21), slice(39, 40))]),
}


def by_definition(x, y):
    """1 - SSIM and its gradients in double precision."""
    with jax.enable_x64(True):
        x, y = jnp.asarray(x, jnp.float64), jnp.asarray(y, jnp.float64)
        distance = lambda x, y: 1.0 - losses.ssim(x, y)  # noqa: E731
        value, gradients = jax.value_and_grad(distance, (0, 1))(x, y)
        return float(value), [np.asarray(g) for g in gradients]


@needs_native
@pytest.mark.parametrize("name", CASES)
def test_equals_the_definition(name):
    x, y = CASES[name]
    value, gradients = jax.value_and_grad(ssim_ffi.distance, (0, 1))(x, y)
    expected, expected_gradients = by_definition(x, y)
    np.testing.assert_allclose(value, expected, rtol=2e-5, atol=3e-7)
    for found, wanted in zip(gradients, expected_gradients, strict=True):
        # Flat surroundings cancel in single precision; the jnp form is ten times farther off.
        assert np.linalg.norm(found - wanted) <= 1e-4 * np.linalg.norm(wanted) + 1e-12


@needs_native
def test_equal_pictures_have_distance_and_gradient_zero():
    x, _ = pictures(30, 40)
    value, gradient = jax.value_and_grad(ssim_ffi.distance)(x, x.copy())
    assert float(value) == 0.0 and not np.any(gradient)


@needs_native
def test_a_nan_is_not_hidden():
    x, y = in_boxes(30, 30, [])
    x[15, 15, 1] = np.nan
    assert np.isnan(ssim_ffi.distance(x, y))


@needs_native
def test_batches_are_their_pictures():
    pairs = [pictures(24, 33, seed=s) for s in range(3)]
    pairs[1] = in_boxes(24, 33, [(slice(3, 9), slice(8, 9))])
    x, y = (np.stack(p) for p in zip(*pairs, strict=True))
    each = jax.vmap(jax.value_and_grad(ssim_ffi.distance))(x, y)
    whole, pull = jax.vjp(ssim_ffi.distance, x, y)
    for i, pair in enumerate(pairs):
        value, gradient = jax.value_and_grad(ssim_ffi.distance)(*pair)
        np.testing.assert_array_equal(each[0][i], value)
        np.testing.assert_array_equal(each[1][i], gradient)
        np.testing.assert_array_equal(whole[i], value)
        np.testing.assert_array_equal(pull(jnp.ones(3))[0][i], gradient)


@needs_native
def test_the_loss_takes_it():
    assert ssim_ffi.is_available(*pictures(4, 4))
    x, y = map(jnp.asarray, pictures(30, 20))
    np.testing.assert_array_equal(losses.d_ssim(x, y), ssim_ffi.distance(x, y))


@needs_native
def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="expected two equal"):
        ssim_ffi.distance(jnp.zeros((4, 4, 3)), jnp.zeros((4, 5, 3)))


@pytest.mark.skipif(not native.has_targets("ssim", "cuda"), reason="libfg3dgs_cuda is not built")
def test_lowers_for_cuda_with_its_gradient(monkeypatch):
    monkeypatch.setenv("FG3DGS_BACKEND", "cuda")
    checks = [jax.export.DisabledSafetyCheck.custom_call("fg3dgs_ssim")]
    batch = jax.vmap(jax.value_and_grad(losses.d_ssim), (0, None))
    exported = jax.export.export(jax.jit(batch), platforms=["cuda"], disabled_checks=checks)
    x, y = pictures(40, 30)
    module = exported(np.stack([x, y]), y).mlir_module()
    assert module.count("custom_call @fg3dgs_ssim") == 1
    assert "optimization_barrier" not in module  # as in the blurs of the jnp form


def digest():
    """Of value and gradient of one call; also run by the test below in other processes."""
    results = jax.value_and_grad(ssim_ffi.distance)(*pictures(130, 70, seed=4))
    return hashlib.sha256(b"".join(np.asarray(r).tobytes() for r in results)).hexdigest()


@needs_cpu
@needs_native
def test_worker_count_does_not_change_a_bit():
    program = "from tests.training.test_ssim_ffi import digest; print(digest())"
    digests = {digest()}
    for workers in ("1", "3", "8"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "FG3DGS_NUM_THREADS": workers},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout.strip())
    assert len(digests) == 1


@needs_cpu
@needs_native
@pytest.mark.parametrize("isa", ["base", "avx2", "avx512"])
def test_every_instruction_set_agrees(isa):
    program = (
        "import jax, numpy as np\n"
        "from tests.training.test_ssim_ffi import CASES, by_definition\n"
        "from fg3dgs_jax.training.ffi import ssim as ssim_ffi\n"
        "value, gradient = jax.value_and_grad(ssim_ffi.distance)(*CASES['wide'])\n"
        "expected, wanted = by_definition(*CASES['wide'])\n"
        "np.testing.assert_allclose(value, expected, rtol=2e-5)\n"
        "np.testing.assert_allclose(gradient, wanted[0], atol=2e-5 * np.abs(wanted[0]).max())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "FG3DGS_ISA": isa},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
