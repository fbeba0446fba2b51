import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from fg3dgs_jax import geometry
from fg3dgs_jax.types import Camera


def random_quats(count, seed=0):
    quats = np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)
    return quats / np.linalg.norm(quats, axis=1, keepdims=True)


def rigid(rotation, translation):
    """float32 [T, 4, 4] of [T, 3, 3] and [T, 3]."""
    poses = np.tile(np.eye(4, dtype=np.float32), (len(rotation), 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = rotation, translation
    return jnp.asarray(poses)


def test_quat_to_rotmat_agrees_with_scipy_and_ignores_length():
    quats = jnp.asarray(random_quats(50))
    expected = Rotation.from_quat(quats, scalar_first=True).as_matrix()
    np.testing.assert_allclose(geometry.quat_to_rotmat(quats), expected, atol=1e-6)
    np.testing.assert_allclose(geometry.quat_to_rotmat(3 * quats), expected, atol=1e-6)


def test_rotation_gradients_are_finite_at_identity_and_zero():
    """To first order, R of the quaternion (1, v) is the identity plus twice the cross product."""
    jacobian = jax.jacobian(geometry.quat_to_rotmat)
    expected = np.zeros((3, 3, 4))
    for axis, (row, column) in ((1, (2, 1)), (2, (0, 2)), (3, (1, 0))):
        expected[row, column, axis], expected[column, row, axis] = 2, -2
    np.testing.assert_allclose(jacobian(jnp.array([1.0, 0, 0, 0])), expected, atol=1e-6)
    assert np.all(np.isfinite(jacobian(jnp.zeros(4))))
    assert np.all(np.asarray(jax.grad(lambda x: geometry.safe_norm(x))(jnp.zeros(3))) == 0)


def test_the_camera_center_is_where_points_become_the_origin():
    turns = Rotation.from_quat(random_quats(10), scalar_first=True).as_matrix()
    poses = rigid(turns, np.random.default_rng(0).normal(size=(10, 3)))
    center = geometry.camera_center(poses)
    np.testing.assert_allclose(center, np.linalg.inv(poses)[:, :3, 3], atol=1e-5)
    np.testing.assert_allclose(geometry.transform_points(poses, center[:, None]), 0, atol=1e-5)


def test_triangulate_inverts_projection_where_there_is_parallax():
    rng = np.random.default_rng(0)
    points = jnp.float32(rng.uniform(-0.1, 0.1, (7, 3)))
    turns = Rotation.from_rotvec(rng.normal(0.0, 0.1, (40, 3))).as_matrix()
    poses = rigid(turns, np.float32([0.0, 0.0, 0.9]))
    camera = Camera(poses, *(jnp.full(40, v) for v in (900.0, 950.0, 200.0, 180.0)))
    pixels = geometry.project_points(points, camera)
    np.testing.assert_allclose(geometry.triangulate(pixels, camera), points, atol=2e-3)
    still = jax.tree.map(lambda x: x[:1].repeat(40, 0), camera)
    found = geometry.triangulate(geometry.project_points(points, still), still)
    again = geometry.project_points(found, jax.tree.map(lambda x: x[0], still))
    assert np.isfinite(found).all() and np.abs(found).max() < 0.2  # depth is not known, yet sane
    assert np.abs(again - geometry.project_points(points, still)[0]).max() < 1.0


def test_short_sums_and_spreads_are_sums_and_repeats_with_their_gradients():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3, 5)))
    weights = jnp.arange(20.0).reshape(4, 5)
    for axis in (1, -2):
        np.testing.assert_allclose(geometry.short_sum(x, axis), x.sum(axis), rtol=1e-6)
        spread = geometry.short_spread(weights, axis, 3)
        np.testing.assert_array_equal(spread, jnp.repeat(jnp.expand_dims(weights, axis), 3, axis))
        found = jax.grad(lambda x, a=axis: jnp.vdot(weights, geometry.short_sum(x, a)))(x)
        np.testing.assert_array_equal(found, spread)
        found = jax.grad(lambda w, a=axis: jnp.vdot(x, geometry.short_spread(w, a, 3)))(weights)
        np.testing.assert_allclose(found, x.sum(axis), rtol=1e-6)
