"""The forms that a GPU gets of small products equal those of a CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fg3dgs_jax.models import layers


def value_and_gradients(function, *arguments):
    def scalar(*a):
        return jnp.sum(jnp.sin(function(*a)))

    return function(*arguments), *jax.grad(scalar, (0, 1))(*arguments)


@pytest.mark.parametrize(
    ("subscripts", "a", "b"),
    [
        ("kc,chd->khd", (9, 8), (8, 2, 3)),
        ("chd,khd->chk", (8, 2, 3), (9, 2, 3)),
        ("khd,hdo->hko", (9, 2, 3), (2, 3, 8)),
        ("blc,cf->blf", (8, 1, 12), (12, 5)),
    ],
)
def test_a_small_einsum_is_the_same_on_a_gpu(monkeypatch, subscripts, a, b):
    rng = np.random.default_rng(0)
    a, b = (jnp.float32(rng.normal(size=shape)) for shape in (a, b))
    expected = value_and_gradients(lambda a, b: jnp.einsum(subscripts, a, b), a, b)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    found = value_and_gradients(lambda a, b: layers.small_einsum(subscripts, a, b), a, b)
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(7,), (8, 7), (2, 3, 7), (40, 7)])
def test_few_rows_and_many_are_multiplied_alike(monkeypatch, shape):
    rng = np.random.default_rng(0)
    x, kernel = (jnp.float32(rng.normal(size=s)) for s in (shape, (7, 5)))
    expected = value_and_gradients(jnp.matmul, x, kernel)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for got, wanted in zip(value_and_gradients(layers.multiply, x, kernel), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
