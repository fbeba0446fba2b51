"""The head fit finds poses that it was given as projected points."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import interp1d

from fg3dgs_jax.clip import landmarks
from fg3dgs_jax.clip import landmarks as landmarks_lib
from fg3dgs_jax.preprocessing.track import bundle_adjustment, head_pose, photometric
from fg3dgs_jax.synthetic import subject

SIZE = (512, 512)
FOCAL = 1200.0
CENTRE = np.array([256.0, 256.0])


def clip(frames=80, noise=0.4, seed=0):
    """A rigid cloud with eye corners 9 cm apart, moving like a speaking head."""
    rng = np.random.default_rng(seed)
    points = rng.uniform([-0.07, -0.09, -0.09], [0.07, 0.1, 0.0], (478, 3))
    points[33], points[263] = (-0.045, 0.005, -0.06), (0.045, 0.005, -0.06)
    t = np.arange(frames) / 25
    poses = np.stack(
        [
            0.1 * np.sin(2 * t),
            0.15 * np.sin(1.3 * t + 1),
            0.08 * np.cos(1.7 * t),
            0.02 * np.sin(t),
            0.015 * np.cos(1.5 * t),
            0.95 + 0.02 * np.sin(0.8 * t),
        ],
        -1,
    )
    pixels = head_pose.project(poses, points, FOCAL, np.array([256.0, 256.0]))
    rotation = head_pose.rotation_matrices(poses[:, :3])
    depth = (points @ rotation.swapaxes(-1, -2))[..., 2] * FOCAL / 0.95
    rough = head_pose.rotation_matrices(poses[:, :3] + rng.normal(0, 0.02, (frames, 3)))
    return pixels + rng.normal(0, noise, pixels.shape), depth, rough, rotation, poses


def relative_turns(matrices):
    """Turns between each frame and the first one, radians [T, 3]: whatever the head frame."""
    return head_pose.rotation_vectors(matrices @ matrices[0].T)


def test_poses_of_projected_points_are_recovered():
    pixels, depth, rough, rotation, _poses = clip()
    fit = head_pose.fit_head(
        head_pose.Sighting(pixels, depth, rough, np.ones(80, bool), SIZE), focal=FOCAL
    )
    found = fit.world_to_camera[:, :3, :3].astype(np.float64)
    error = np.degrees(np.abs(relative_turns(found) - relative_turns(rotation)))
    assert error.max() < 1.0 and error.mean() < 0.3
    assert abs(fit.world_to_camera[:, 2, 3].mean() - 0.95) < 0.08
    assert fit.error.mean() < 1.0
    assert fit.world_to_camera.dtype == np.float32 and fit.world_to_camera.shape == (80, 4, 4)


def test_fit_is_smoother_than_the_rough_poses():
    pixels, depth, rough, _rotation, _ = clip(noise=1.0)
    fit = head_pose.fit_head(
        head_pose.Sighting(pixels, depth, rough, np.ones(80, bool), SIZE), focal=FOCAL
    )
    before = np.diff(head_pose.rotation_vectors(rough), 2, axis=0).std()
    after = np.radians(head_pose.jitter(fit.world_to_camera)[0])
    assert after < 0.25 * before
    poses = np.concatenate(
        [
            head_pose.rotation_vectors(fit.world_to_camera[:, :3, :3].astype(float)),
            fit.world_to_camera[:, :3, 3],
        ],
        -1,
    )
    alone = head_pose.frame_by_frame(
        poses,
        fit.points[head_pose.RIGID].astype(float),
        pixels[:, head_pose.RIGID],
        np.ones(80, bool),
        fit.focal,
        CENTRE,
    )
    assert 3 * after < np.diff(alone[:, :3], 2, axis=0).std()


def test_frames_without_a_face_are_interpolated_and_flagged():
    pixels, depth, rough, _rotation, _ = clip()
    valid = np.ones(80, bool)
    valid[30:36] = False
    whole = head_pose.fit_head(
        head_pose.Sighting(pixels, depth, rough, np.ones(80, bool), SIZE), focal=FOCAL
    )
    pixels[30:36], depth[30:36], rough[30:36] = 0, 0, np.eye(3)
    fit = head_pose.fit_head(head_pose.Sighting(pixels, depth, rough, valid, SIZE), focal=FOCAL)
    assert not fit.valid[30:36].any() and fit.valid.sum() == 74
    assert (fit.error[30:36] == 0).all()
    gap = np.abs(fit.world_to_camera - whole.world_to_camera)[30:36]
    assert gap[:, :3, :3].max() < 0.02 and gap[:, :3, 3].max() < 0.005


def test_assumed_lens_puts_the_head_at_arms_length():
    pixels, depth, rough, _, _ = clip(frames=20)
    fit = head_pose.fit_head(head_pose.Sighting(pixels, depth, rough, np.ones(20, bool), SIZE))
    assert 0.5 < fit.world_to_camera[:, 2, 3].mean() < 1.4
    assert fit.focal == pytest.approx(2.4 * 512, rel=0.02)


def unknowns(num=7, count=5, seed=1):
    """A small fit off its optimum, and landmarks for it."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-0.08, 0.08, (count, 3))
    poses = np.concatenate([rng.normal(0, 0.2, (num, 3)), rng.normal(0, 0.02, (num, 3))], -1)
    poses[:, 5] += 0.9
    pixels = head_pose.project(poses, points, FOCAL, CENTRE) + rng.normal(0, 1.0, (num, count, 2))
    return bundle_adjustment.Unknowns(poses, points, FOCAL), pixels


def test_jacobians_equal_differences():
    now, _ = unknowns()
    by_pose, by_point = bundle_adjustment.jacobians(now.poses, now.points, FOCAL)
    for k, step in enumerate(1e-6 * np.eye(6)):
        ahead = head_pose.project(now.poses + step, now.points, FOCAL, CENTRE)
        back = head_pose.project(now.poses - step, now.points, FOCAL, CENTRE)
        np.testing.assert_allclose(by_pose[..., k], (ahead - back) / 2e-6, rtol=1e-5, atol=1e-3)
    for k, step in enumerate(1e-6 * np.eye(3)):
        ahead = head_pose.project(now.poses, now.points + step, FOCAL, CENTRE)
        back = head_pose.project(now.poses, now.points - step, FOCAL, CENTRE)
        np.testing.assert_allclose(by_point[..., k], (ahead - back) / 2e-6, rtol=1e-5, atol=1e-3)


def test_step_by_schur_complement_equals_the_dense_one():
    now, pixels = unknowns()
    start = now._replace(points=now.points + 0.001, focal=1.02 * FOCAL)
    scales = bundle_adjustment.Scales(50.0, 0.02, 0.02, 0.01, 0.1)  # no landmark beyond Huber's
    num, count = pixels.shape[:2]
    found = bundle_adjustment.step(now, start, pixels, np.ones((num, count)), CENTRE, scales)
    size = 6 * num

    def residuals(x):
        """All terms with their weights, of a change x of every unknown."""
        poses = now.poses + x[:size].reshape(-1, 6)
        points, log_focal = now.points + x[size:-1].reshape(-1, 3), x[-1]
        shown = head_pose.project(poses, points, FOCAL * np.exp(log_focal), CENTRE)
        bend = np.diff(poses, bundle_adjustment.ORDER, axis=0) / 0.02
        still = np.diff(now.poses, bundle_adjustment.ORDER, axis=0) / 0.02
        tied = np.sqrt(0.1 * num)
        return np.concatenate(
            [
                ((shown - pixels) / 50).ravel(),
                (bend / np.sqrt(1 + (still / 4) ** 2)).ravel(),
                tied * (points - start.points).ravel() / 0.01,
                [tied * (log_focal - np.log(1.02)) / 0.1],
            ]
        )

    steps = 1e-6 * np.eye(size + 3 * count + 1)
    jacobian = np.stack([(residuals(d) - residuals(-d)) / 2e-6 for d in steps], -1)
    expected, *_ = np.linalg.lstsq(jacobian, -residuals(np.zeros(len(steps))), rcond=None)
    np.testing.assert_allclose(
        (found.poses - now.poses).ravel(), expected[:size], rtol=1e-3, atol=1e-6
    )
    np.testing.assert_allclose(
        (found.points - now.points).ravel(), expected[size:-1], rtol=1e-3, atol=1e-6
    )
    assert np.log(found.focal / FOCAL) == pytest.approx(expected[-1], rel=1e-3)


def test_rotation_vectors_invert_rotation_matrices():
    vectors = np.random.default_rng(2).normal(0, 0.8, (50, 3))
    np.testing.assert_allclose(
        head_pose.rotation_vectors(head_pose.rotation_matrices(vectors)), vectors, atol=1e-9
    )


@pytest.mark.parametrize("frames", [2, 3, 4])
def test_very_short_clips_are_fitted(frames):
    pixels, depth, rough, _, _ = clip(frames)
    fit = head_pose.fit_head(
        head_pose.Sighting(pixels, depth, rough, np.ones(frames, bool), SIZE), focal=FOCAL
    )
    assert fit.error.max() < 1.0


def test_no_face_is_refused():
    pixels, depth, rough, _, _ = clip(frames=10)
    with pytest.raises(ValueError, match="a face was found in 0 of 10"):
        head_pose.fit_head(head_pose.Sighting(pixels, depth, rough, np.zeros(10, bool), SIZE))


def embedded(seconds=14.0):
    """The embedded subject's landmarks in the head frame [T, 478, 3], and its poses [T, 4, 4].

    Its expression is made for every third frame and interpolated: a surface a frame takes time.
    """
    _, articulation = subject.synthesize_speech(0, seconds)
    motion = subject.make_motion(0, articulation)
    tracks = subject._face_poses(articulation, motion["expression"])
    times = np.arange(len(motion["world_to_camera"]))
    some = np.append(times[:-1:3], times[-1])
    tracks = {name: jnp.asarray(track[some], jnp.float32) for name, track in tracks.items()}

    subject.head.still_head()  # cached: outside of what is traced
    subject.landmarks.still_coordinates()

    def points(pose):
        return subject.landmarks.world_points(pose, subject.head.surface(pose)[0])

    found = jax.jit(lambda tracks: jax.lax.map(points, tracks))(tracks)
    found = interp1d(some, np.asarray(found, np.float64), axis=0)(times)
    return found, motion["world_to_camera"].astype(np.float64)


def onto(source, target):
    """Scale, rotation and shift that bring points [P, 3] onto others."""
    a, b = source.mean(0), target.mean(0)
    u, s, vt = np.linalg.svd((target - b).T @ (source - a))
    sign = np.diag([1.0, 1.0, np.linalg.det(u @ vt)])
    turn = u @ sign @ vt
    scale = (s * np.diag(sign)).sum() / ((source - a) ** 2).sum()
    return scale, turn, b - scale * turn @ a


def test_embedded_subject_is_tracked_within_a_third_of_a_degree_and_two_millimetres():
    points, poses = embedded()
    rng = np.random.default_rng(0)
    focal = subject._intrinsics(512)[0]
    camera = points @ poses[:, :3, :3].swapaxes(1, 2) + poses[:, None, :3, 3]
    pixels = focal * camera[..., :2] / camera[..., 2:] + CENTRE
    noisy = pixels + rng.normal(0, 0.5, pixels.shape)
    eyes = camera[:, list(head_pose.OUTER_EYE_CORNERS), 2].mean(1)
    rough = head_pose.rotation_matrices(rng.normal(0, 0.03, (len(poses), 3))) @ poses[:, :3, :3]
    depth = camera[..., 2] * (focal / eyes)[:, None]
    seen = np.ones(len(poses), bool)
    fit = head_pose.fit_head(head_pose.Sighting(noisy, depth, rough, seen, SIZE))
    rigid = head_pose.RIGID
    scale, turn, shift = onto(fit.points[rigid].astype(float), np.median(points, 0)[rigid])
    found = fit.world_to_camera.astype(np.float64)
    turned = found[:, :3, :3] @ turn.T  # from the true head frame
    moved = scale * found[:, :3, 3] - turned @ shift
    relative = turned @ poses[:, :3, :3].swapaxes(1, 2)
    error = np.degrees(np.linalg.norm(head_pose.rotation_vectors(relative), axis=-1))
    assert error.mean() < 0.3 and error.max() < 0.6
    assert np.abs(moved - poses[:, :3, 3])[:, :2].max() < 2e-3


def test_a_quick_nod_keeps_its_height_and_its_moment():
    frames, height = 60, 0.06  # rad, within a quarter of a second
    points = np.random.default_rng(0).uniform([-0.07, -0.09, -0.09], [0.07, 0.1, 0.0], (478, 3))
    points[33], points[263] = (-0.045, 0.005, -0.06), (0.045, 0.005, -0.06)
    poses = np.tile([0.1, 0.1, 0.0, 0.0, 0.0, 0.95], (frames, 1))
    poses[:, 0] += height * np.exp(-(((np.arange(frames) - 30) / 4) ** 2))
    rotation = head_pose.rotation_matrices(poses[:, :3])
    depth = (points @ rotation.swapaxes(-1, -2))[..., 2] * FOCAL / 0.89
    pixels = head_pose.project(poses, points, FOCAL, CENTRE)
    pixels += np.random.default_rng(3).normal(0, 0.5, pixels.shape)
    fit = head_pose.fit_head(
        head_pose.Sighting(pixels, depth, rotation, np.ones(frames, bool), SIZE), focal=FOCAL
    )
    turns = relative_turns(fit.world_to_camera[:, :3, :3].astype(np.float64))[:, 0]
    assert abs(int(np.argmax(turns)) - 30) <= 1
    assert turns.max() > 0.85 * height


def test_a_cut_is_not_smoothed_over():
    kept = np.r_[0:30, 50:80]  # the head jumps by 8 degrees
    pixels, depth, rough, rotation, poses = (values[kept] for values in clip())
    fit = head_pose.fit_head(
        head_pose.Sighting(pixels, depth, rough, np.ones(60, bool), SIZE), FOCAL, cuts=[30]
    )
    found = fit.world_to_camera[:, :3, :3].astype(np.float64)
    off = np.degrees(relative_turns(found) - relative_turns(rotation))
    moved = fit.world_to_camera[:, :3, 3] - poses[:, 3:]
    for error in (off, 1e3 * (moved - moved.mean(0))):  # degrees, mm
        size = np.linalg.norm(error, axis=-1)
        assert size[28:32].max() < 1.5 * size.max(initial=0, where=abs(np.arange(60) - 30) > 4)


def test_frames_at_the_end_without_a_face_stay_where_the_head_was():
    pixels, depth, rough, _, _ = clip()
    valid = np.arange(80) < 60
    pixels[60:], depth[60:], rough[60:] = 0, 0, np.eye(3)
    fit = head_pose.fit_head(head_pose.Sighting(pixels, depth, rough, valid, SIZE), focal=FOCAL)
    assert np.abs(fit.world_to_camera[60:] - fit.world_to_camera[59]).max() < 0.1


def textured_plane(frames=40):
    """A flat face with skin-like texture, filmed: pictures, points [478, 3], poses [T, 6]."""
    rng = np.random.default_rng(4)
    points = np.zeros((478, 3))
    points[:, :2] = rng.uniform([-0.06, -0.07], [0.06, 0.07], (478, 2))
    turn = 2 * np.pi * np.arange(36) / 36
    ring = np.stack([0.07 * np.cos(turn), 0.09 * np.sin(turn)], -1)
    points[list(landmarks_lib.FACE_OVAL), :2] = ring
    parts = {
        landmarks_lib.RIGHT_EYE: (-0.035, -0.01),
        landmarks_lib.LEFT_EYE: (0.035, -0.01),
        landmarks.RIGHT_BROW: (-0.035, -0.03),
        landmarks.LEFT_BROW: (0.035, -0.03),
        landmarks_lib.OUTER_LIPS: (0.0, 0.05),
    }
    for ids, middle in parts.items():
        points[list(ids), :2] = middle + 0.1 * points[list(ids), :2]
    points[33, :2], points[263, :2] = (-0.045, -0.01), (0.045, -0.01)
    points[:, 2] = -0.06
    t = np.arange(frames) / 25
    poses = np.stack(
        [
            0.12 * np.sin(5 * t),
            0.15 * np.sin(3.3 * t + 1),
            0.06 * np.cos(3.7 * t),
            0.02 * np.sin(t),
            0.015 * np.cos(1.5 * t),
            0.95 + 0.02 * np.sin(2 * t),
        ],
        -1,
    )
    texture = cv2.GaussianBlur(rng.normal(0, 60, (600, 600)).astype(np.float32), (0, 0), 2.5)
    texture = np.clip(128 + 4 * texture, 0, 255)
    to_plane = np.array(
        [[0.2 / 600, 0, -0.1 + 0.1 / 600], [0, 0.2 / 600, -0.1 + 0.1 / 600], [0, 0, 1]]
    )
    lens = np.array([[FOCAL / 2, 0, 127.5], [0, FOCAL / 2, 127.5], [0, 0, 1]])  # pixel centres
    pictures = []
    for pose in poses:
        matrix = head_pose.rotation_matrices(pose[:3])
        plane = np.stack([matrix[:, 0], matrix[:, 1], pose[3:] - 0.06 * matrix[:, 2]], -1)
        shown = cv2.warpPerspective(texture, lens @ plane @ to_plane, (256, 256))
        pictures.append(np.repeat(np.rint(shown)[..., None], 3, -1).astype(np.uint8))
    return np.stack(pictures), points, poses


def test_alignment_of_skin_beats_landmarks_alone():
    frames, points, poses = textured_plane()
    rng = np.random.default_rng(5)
    centre = CENTRE / 2
    pixels = head_pose.project(poses, points, FOCAL / 2, centre)
    rotation = head_pose.rotation_matrices(poses[:, :3])
    depth = (points @ rotation.swapaxes(-1, -2))[..., 2] * FOCAL / 2 / 0.9
    # What a network errs by: the same for all landmarks of a frame, and different in the next.
    pixels += rng.normal(0, 0.7, (len(poses), 1, 2)) + rng.normal(0, 0.3, pixels.shape)
    valid = np.ones(len(poses), bool)
    sighting = head_pose.Sighting(pixels, depth, rotation, valid, (256, 256))

    def error(fit):
        shown = head_pose.project(poses, points[head_pose.RIGID], FOCAL / 2, centre)
        matrices = fit.world_to_camera.astype(np.float64)
        found = np.concatenate(
            [head_pose.rotation_vectors(matrices[:, :3, :3]), matrices[:, :3, 3]], -1
        )
        off = head_pose.project(found, fit.points[head_pose.RIGID], FOCAL / 2, centre) - shown
        return (off - off.mean(0)).std()

    aligned = head_pose.fit_head(sighting, FOCAL / 2, frames=frames)
    alone = head_pose.fit_head(sighting, FOCAL / 2)
    assert error(aligned) < 0.5 * error(alone), (error(aligned), error(alone))


def test_skin_points_keep_clear_of_mouth_and_eyes():
    _, points, _ = textured_plane(2)
    skin = photometric.skin_points(points)
    assert 300 < len(skin) < 2000 and np.isfinite(skin).all()
    assert (skin[:, 1] < points[list(landmarks_lib.OUTER_LIPS), 1].min()).all()
    for part in (
        landmarks_lib.LEFT_EYE,
        landmarks_lib.RIGHT_EYE,
        landmarks.LEFT_BROW,
        landmarks.RIGHT_BROW,
    ):
        middle = points[list(part), :2].mean(0)
        assert np.linalg.norm(skin[:, :2] - middle, axis=-1).min() > photometric.BROW_MARGIN
