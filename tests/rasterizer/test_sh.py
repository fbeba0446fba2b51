"""Spherical harmonics against SciPy's, and the colour they make."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fg3dgs_jax.rasterizer.sh import eval_sh, sh_basis


def random_dirs(n=50):
    dirs = np.random.default_rng(0).normal(size=(n, 3))
    return dirs / np.linalg.norm(dirs, axis=1, keepdims=True)


def test_basis_equals_scipy():
    """Real harmonics with the Condon-Shortley phase, which is the sign convention of 3DGS."""
    special = pytest.importorskip("scipy.special")
    dirs = random_dirs()
    polar, azimuth = np.arccos(dirs[:, 2]), np.arctan2(dirs[:, 1], dirs[:, 0])
    expected = []
    for degree in range(4):
        for order in range(-degree, degree + 1):
            value = special.sph_harm_y(degree, abs(order), polar, azimuth)
            if order < 0:
                expected.append(np.sqrt(2) * value.imag)
            elif order == 0:
                expected.append(value.real)
            else:
                expected.append(np.sqrt(2) * value.real)
    np.testing.assert_allclose(sh_basis(jnp.float32(dirs), 3), np.stack(expected, -1), atol=2e-6)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_basis_is_orthonormal(degree):
    """By Gauss-Legendre quadrature in z and equal steps around: exact for these polynomials."""
    z, weights = np.polynomial.legendre.leggauss(6)
    angle = np.arange(12) * np.pi / 6
    ring = np.sqrt(1 - z**2)
    dirs = np.stack(
        [ring[:, None] * np.cos(angle), ring[:, None] * np.sin(angle), z[:, None] + 0 * angle], -1
    ).reshape(-1, 3)
    basis = np.asarray(sh_basis(jnp.float32(dirs), degree), np.float64)
    area = np.repeat(weights, 12) * np.pi / 6
    np.testing.assert_allclose((basis * area[:, None]).T @ basis, np.eye(basis.shape[1]), atol=3e-6)


def test_color_is_shifted_clamped_and_blind_to_length():
    dirs = jnp.float32(random_dirs(4))
    gray = jnp.zeros((4, 16, 3))
    np.testing.assert_allclose(eval_sh(gray, dirs, 3), 0.5)
    assert not np.any(eval_sh(gray.at[:, 0].set(-5.0), dirs, 3))
    assert float(eval_sh(gray.at[:, 0].set(9.0), dirs, 0).max()) > 1.0  # not clamped above
    sh = jax.random.normal(jax.random.key(0), (4, 16, 3))
    np.testing.assert_allclose(eval_sh(sh, 7.0 * dirs, 3), eval_sh(sh, dirs, 3), atol=1e-5)
    np.testing.assert_array_equal(eval_sh(sh, dirs, 1), eval_sh(sh[:, :4], dirs, 1))


def test_gradient_is_finite_for_a_gaussian_at_the_camera():
    sh = jax.random.normal(jax.random.key(0), (1, 4, 3))
    gradient = jax.grad(lambda dirs: eval_sh(sh, dirs, 1).sum())(jnp.zeros((1, 3)))
    assert np.all(np.isfinite(gradient))


def test_bad_degree_and_too_few_coefficients_are_refused():
    with pytest.raises(ValueError, match="degree 4"):
        eval_sh(jnp.zeros((1, 25, 3)), jnp.ones((1, 3)), 4)
    with pytest.raises(ValueError, match="K >= 9"):
        eval_sh(jnp.zeros((1, 4, 3)), jnp.ones((1, 3)), 2)
