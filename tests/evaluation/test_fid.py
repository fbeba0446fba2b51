"""The Frechet distance against closed forms, SciPy's matrix root, and the rows themselves."""

import numpy as np
import pytest

from fg3dgs_jax.evaluation import fid


def _moments(rows, batches=1):
    moments = fid.Moments(rows.shape[1])
    for part in np.array_split(rows, batches):
        moments.add(part)
    return moments


def test_streamed_moments_are_those_of_all_rows():
    rows = 1000 + np.random.default_rng(0).normal(size=(50, 7)) @ np.diag(range(1, 8))
    moments = _moments(rows, 9)
    assert moments.count == 50
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(rows.T), rtol=1e-9, atol=1e-9)


def test_closed_form_of_gaussians_that_share_their_axes():
    rng = np.random.default_rng(1)
    axes = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    a, b = rng.uniform(0.1, 4, (2, 6))
    means = rng.normal(size=(2, 6))
    covariances = [(axes * values) @ axes.T for values in (a, b)]
    expected = np.sum((means[0] - means[1]) ** 2) + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    found = fid.frechet_distance(means[0], covariances[0], means[1], covariances[1])
    assert found == pytest.approx(expected, rel=1e-10)


def test_equals_scipys_matrix_root():
    linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(2)
    rows = [rng.normal(size=(400, 20)) @ rng.normal(size=(20, 20)) for _ in range(2)]
    a, b = (_moments(r, 4) for r in rows)
    root = linalg.sqrtm(a.covariance @ b.covariance)
    expected = np.sum((a.mean - b.mean) ** 2)
    expected += np.trace(a.covariance + b.covariance - 2 * root.real)
    assert fid.distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_fewer_rows_than_features():
    """Then the trace of the root is the sum of the singular values of the rows' inner products."""
    rng = np.random.default_rng(3)
    x = rng.gamma(0.5, size=(30, 300))
    y = 0.7 * x + 0.3 * rng.gamma(0.5, size=(30, 300))
    a, b = _moments(x, 5), _moments(y, 2)
    centred = [(rows - rows.mean(0)) / np.sqrt(29) for rows in (x, y)]
    cross = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) - 2 * cross
    expected += sum(np.sum(rows**2) for rows in centred)
    assert fid.distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert fid.distance(a, a) == pytest.approx(0, abs=1e-5)


def test_too_few_or_wrong_rows_are_refused():
    moments = fid.Moments(4)
    moments.add(np.zeros((1, 4)))
    with pytest.raises(ValueError, match="there are 1 rows; expected at least 2"):
        fid.distance(moments, moments)
    for bad in (np.zeros((0, 4)), np.zeros((2, 5)), np.zeros(4)):
        with pytest.raises(ValueError, match=r"expected \[n >= 1, 4\]"):
            moments.add(bad)
