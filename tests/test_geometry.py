import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from fg3dgs_jax import geometry
from fg3dgs_jax.types import Camera


def random_quats(count, seed=0):
    quats = np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)
    return quats / np.linalg.norm(quats, axis=1, keepdims=True)


def random_poses(count, seed=0):
    rng = np.random.default_rng(seed)
    rotation = Rotation.from_quat(random_quats(count, seed), scalar_first=True).as_matrix()
    translation = rng.normal(size=(count, 3))
    return geometry.rigid(jnp.float32(rotation), jnp.float32(translation))


def test_quat_to_rotmat_agrees_with_scipy_and_ignores_length():
    quats = random_quats(50)
    expected = Rotation.from_quat(quats, scalar_first=True).as_matrix()
    np.testing.assert_allclose(geometry.quat_to_rotmat(quats), expected, atol=1e-6)
    np.testing.assert_allclose(geometry.quat_to_rotmat(3 * quats), expected, atol=1e-6)


def test_rotmat_to_quat_inverts_even_near_half_turns():
    half_turns = np.float32([[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1e-4, 0.6, 0.8, 0]])
    quats = np.concatenate([random_quats(50), half_turns])
    back = geometry.rotmat_to_quat(geometry.quat_to_rotmat(quats))
    np.testing.assert_allclose(np.abs(np.sum(back * quats, 1)), 1.0, atol=1e-6)
    assert np.all(np.asarray(back)[:, 0] >= 0)


def test_rotation_gradients_are_finite_at_identity_and_zero():
    grad = jax.grad(lambda q: geometry.rotmat_to_quat(geometry.quat_to_rotmat(q))[1])
    np.testing.assert_allclose(grad(jnp.array([1.0, 0, 0, 0])), [0, 1, 0, 0], atol=1e-6)
    assert np.all(np.isfinite(grad(jnp.zeros(4))))
    assert np.all(np.asarray(jax.grad(lambda x: geometry.safe_norm(x))(jnp.zeros(3))) == 0)


def test_invert_rigid_and_camera_center():
    poses = random_poses(10)
    inverse = geometry.invert_rigid(poses)
    np.testing.assert_allclose(inverse @ poses, np.tile(np.eye(4), (10, 1, 1)), atol=1e-5)
    np.testing.assert_allclose(geometry.camera_center(poses), inverse[:, :3, 3], atol=1e-5)


def test_look_at_puts_the_target_ahead_and_up_above():
    eye, target = np.float32([0.3, 0.1, 1.0]), np.float32([0.0, 0.05, 0.0])
    pose = geometry.look_at(eye, target)
    points = geometry.transform_points(pose, jnp.stack([target, target + jnp.array([0, 0.1, 0])]))
    distance = np.linalg.norm(target - eye)
    np.testing.assert_allclose(points[0], [0, 0, distance], atol=1e-6)
    assert points[1, 1] < -0.09  # world up is -y in the camera
    np.testing.assert_allclose(np.linalg.det(pose[:3, :3]), 1.0, atol=1e-6)


def test_slerp_takes_the_short_way_at_constant_speed():
    start = np.float32([1, 0, 0, 0])
    end = Rotation.from_euler("z", 80, degrees=True).as_quat(scalar_first=True).astype(np.float32)
    for sign in (1, -1):
        middle = geometry.slerp(jnp.array(start), jnp.array(sign * end), jnp.float32(0.25))
        angle = Rotation.from_quat(np.asarray(middle), scalar_first=True).magnitude()
        np.testing.assert_allclose(np.rad2deg(angle), 20, atol=1e-3)
    same = jax.grad(lambda t: geometry.slerp(jnp.array(start), jnp.array(start), t)[0])(0.5)
    assert np.isfinite(same)


def test_interpolate_poses_hits_the_known_poses_and_keeps_the_centre_of_a_turn():
    poses = random_poses(4)
    np.testing.assert_allclose(geometry.interpolate_poses(poses, np.arange(4)), poses, atol=1e-5)
    center = np.float32([0.2, -0.1, 1.0])
    turns = Rotation.from_euler("y", [[0], [60]], degrees=True).as_matrix().astype(np.float32)
    turning = geometry.rigid(jnp.array(turns), jnp.array(-turns @ center))
    middle = geometry.interpolate_poses(turning, [0.5])[0]
    np.testing.assert_allclose(geometry.camera_center(middle), center, atol=1e-6)
    expected = Rotation.from_euler("y", 30, degrees=True).as_matrix()
    np.testing.assert_allclose(middle[:3, :3], expected, atol=1e-6)
    np.testing.assert_allclose(
        geometry.interpolate_poses(poses[:1], [0, 2.5])[1], poses[0], atol=1e-6
    )


def test_triangulate_inverts_projection_where_there_is_parallax():
    rng = np.random.default_rng(0)
    points = jnp.float32(rng.uniform(-0.1, 0.1, (7, 3)))
    turns = Rotation.from_rotvec(rng.normal(0.0, 0.1, (40, 3))).as_matrix()
    poses = geometry.rigid(jnp.float32(turns), jnp.tile(jnp.array([0.0, 0.0, 0.9]), (40, 1)))
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
