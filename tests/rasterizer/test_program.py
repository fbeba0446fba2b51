"""The custom calls in JAX programs: gradients in scan, pmap, bad numbers, the backend choice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fg3dgs_jax import native
from fg3dgs_jax.rasterizer import Camera, project, rasterize, render

from .native import BACKEND, needs_native

pytestmark = needs_native
CAMERA = Camera(jnp.eye(4), *map(jnp.float32, (40.0, 40.0, 16.0, 16.0)))


def _arguments(n=20):
    rng = np.random.default_rng(0)
    means = rng.uniform([-0.3, -0.3, 0.8], [0.3, 0.3, 1.2], (n, 3))
    parts = (means, rng.normal(size=(n, 4)), rng.uniform(0.01, 0.05, (n, 3)))
    parts += (rng.uniform(0.2, 0.9, n), rng.uniform(size=(n, 3)))
    return tuple(jnp.asarray(x, jnp.float32) for x in parts)


def _loss(means, rest):
    return jnp.sum(render(means, *rest, CAMERA, width=32, height=32, backend=BACKEND).image ** 2)


def test_gradient_inside_scan_equals_the_loop():
    means, *rest = _arguments()
    step = jax.grad(_loss)

    def body(m, _):
        return m - 1e-5 * step(m, rest), None

    scanned = jax.jit(lambda m: jax.lax.scan(body, m, None, length=3)[0])(means)
    looped = means
    for _ in range(3):
        looped = body(looped, None)[0]
    np.testing.assert_allclose(scanned, looped, atol=1e-6)
    assert np.abs(scanned - means).max() > 1e-5  # it did move


def test_pmap_equals_jit():
    means, *rest = _arguments()
    got = jax.pmap(jax.grad(_loss), in_axes=(0, None))(means[None], rest)[0]
    np.testing.assert_allclose(got, jax.jit(jax.grad(_loss))(means, rest), rtol=1e-6, atol=1e-6)


def test_bad_numbers_are_culled_and_leave_finite_gradients():
    means, quats, scales, opacities, _ = _arguments()
    means = means.at[0].set(jnp.nan).at[1, 0].set(jnp.inf)
    quats, scales = quats.at[2].set(0.0), scales.at[3].set(jnp.nan)
    opacities = opacities.at[4].set(jnp.nan)
    sh = jnp.ones((means.shape[0], 4, 3))

    def loss(*operands):
        out = render(
            *operands, CAMERA, width=32, height=32, sh_degree=1, depth=True, backend=BACKEND
        )
        return jnp.sum(out.image) + jnp.sum(out.depth), out.aux.radii

    operands = (means, quats, scales, opacities, sh)
    (value, radii), grads = jax.value_and_grad(loss, argnums=range(5), has_aux=True)(*operands)
    assert np.isfinite(value)
    assert np.all(np.asarray(radii)[:5] == 0) and np.all(np.asarray(radii)[5:] > 0)
    for g in grads:
        assert np.all(np.isfinite(g))
        np.testing.assert_array_equal(g[:4], 0.0)


def test_background_and_alpha_gradients():
    means, quats, scales, opacities, colors = _arguments()
    p = project(means, quats, scales, opacities, CAMERA, width=32, height=32, backend=BACKEND)

    def image(b):
        options = {"width": 32, "height": 32, "background": b, "backend": BACKEND}
        return rasterize(p, colors, opacities, **options)

    b = jnp.array([0.1, 0.5, 0.9])
    got = jax.grad(lambda b: jnp.sum(image(b).image))(b)
    np.testing.assert_allclose(got, jnp.full(3, jnp.sum(1.0 - image(b).alpha)), rtol=1e-5)


def test_an_unknown_backend_is_refused_in_one_line():
    with pytest.raises(ValueError, match="unknown: use one of") as error:
        native.resolve_backend("metal")
    assert "\n" not in str(error.value)
    assert native.resolve_backend(BACKEND) == BACKEND
