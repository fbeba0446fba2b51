"""The head fit finds poses that it was given as projected points."""

import numpy as np
import pytest

from fg3dgs_jax.data import tracking

SIZE = (512, 512)
FOCAL = 1200.0


def clip(frames=80, noise=0.4, seed=0):
    """A rigid cloud with eye corners 9 cm apart, moving like a speaking head."""
    rng = np.random.default_rng(seed)
    points = rng.uniform([-0.07, -0.09, -0.09], [0.07, 0.1, 0.0], (478, 3))
    points[33], points[263] = (-0.045, 0.005, -0.06), (0.045, 0.005, -0.06)
    t = np.arange(frames) / 25
    poses = np.stack(
        [0.1 * np.sin(2 * t), 0.15 * np.sin(1.3 * t + 1), 0.08 * np.cos(1.7 * t),
         0.02 * np.sin(t), 0.015 * np.cos(1.5 * t), 0.95 + 0.02 * np.sin(0.8 * t)], -1
    )  # fmt: skip
    pixels = tracking.project(poses, points, FOCAL, np.array([256.0, 256.0]))
    rotation = tracking.rotation_matrices(poses[:, :3])
    depth = (points @ rotation.swapaxes(-1, -2))[..., 2] * FOCAL / 0.95
    rough = tracking.rotation_matrices(poses[:, :3] + rng.normal(0, 0.02, (frames, 3)))
    return pixels + rng.normal(0, noise, pixels.shape), depth, rough, rotation, poses


def relative_turns(matrices):
    """Turns between each frame and the first one, radians [T, 3]: whatever the head frame."""
    return tracking.rotation_vectors(matrices @ matrices[0].T)


def test_poses_of_projected_points_are_recovered():
    pixels, depth, rough, rotation, _poses = clip()
    fit = tracking.fit_head(pixels, depth, rough, np.ones(80, bool), SIZE, focal=FOCAL)
    found = fit.world_to_camera[:, :3, :3].astype(np.float64)
    error = np.degrees(np.abs(relative_turns(found) - relative_turns(rotation)))
    assert error.max() < 1.0 and error.mean() < 0.3
    assert abs(fit.world_to_camera[:, 2, 3].mean() - 0.95) < 0.08
    assert fit.error.mean() < 1.0
    assert fit.world_to_camera.dtype == np.float32 and fit.world_to_camera.shape == (80, 4, 4)


def test_fit_is_smoother_than_the_rough_poses():
    pixels, depth, rough, _rotation, _ = clip(noise=1.0)
    fit = tracking.fit_head(pixels, depth, rough, np.ones(80, bool), SIZE, focal=FOCAL)
    before = np.diff(tracking.rotation_vectors(rough), 2, axis=0).std()
    assert np.radians(tracking.jitter(fit.world_to_camera)[0]) < 0.25 * before


def test_frames_without_a_face_are_interpolated_and_flagged():
    pixels, depth, rough, _rotation, _ = clip()
    valid = np.ones(80, bool)
    valid[30:36] = False
    whole = tracking.fit_head(pixels, depth, rough, np.ones(80, bool), SIZE, focal=FOCAL)
    pixels[30:36], depth[30:36], rough[30:36] = 0, 0, np.eye(3)
    fit = tracking.fit_head(pixels, depth, rough, valid, SIZE, focal=FOCAL)
    assert not fit.valid[30:36].any() and fit.valid.sum() == 74
    assert (fit.error[30:36] == 0).all()
    gap = np.abs(fit.world_to_camera - whole.world_to_camera)[30:36]
    assert gap[:, :3, :3].max() < 0.02 and gap[:, :3, 3].max() < 0.005


def test_assumed_lens_puts_the_head_at_arms_length():
    pixels, depth, rough, _, _ = clip(frames=20)
    fit = tracking.fit_head(pixels, depth, rough, np.ones(20, bool), SIZE)
    assert 0.5 < fit.world_to_camera[:, 2, 3].mean() < 1.4
    assert fit.focal == pytest.approx(2.4 * 512)


def test_banded_solution_equals_the_dense_one():
    rng = np.random.default_rng(1)
    num = 7
    half = rng.normal(size=(num, 6, 6))
    normal = half @ half.swapaxes(-1, -2) + np.eye(6)
    right, bend = rng.normal(size=(num, 6)), rng.normal(size=(num - 2, 6))
    stiff = rng.uniform(0.5, 2, (num - 2, 6))
    second = np.kron(np.diff(np.eye(num), 2, axis=0), np.eye(6))
    dense = np.zeros((6 * num, 6 * num))
    for i in range(num):
        dense[6 * i : 6 * i + 6, 6 * i : 6 * i + 6] = normal[i]
    dense += second.T @ np.diag(stiff.ravel()) @ second
    rhs = right.ravel() - second.T @ (stiff * bend).ravel()
    expected = np.linalg.solve(dense, rhs).reshape(num, 6)
    np.testing.assert_allclose(
        tracking._solve_banded(normal, right, bend, stiff), expected, rtol=1e-9
    )


def test_rotation_vectors_invert_rotation_matrices():
    vectors = np.random.default_rng(2).normal(0, 0.8, (50, 3))
    np.testing.assert_allclose(
        tracking.rotation_vectors(tracking.rotation_matrices(vectors)), vectors, atol=1e-9
    )


def test_no_face_is_refused():
    pixels, depth, rough, _, _ = clip(frames=10)
    with pytest.raises(ValueError, match="a face was found in 0 of 10"):
        tracking.fit_head(pixels, depth, rough, np.zeros(10, bool), SIZE)
