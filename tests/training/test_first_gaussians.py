"""Where training starts: coloured points on the head that the landmarks tell."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import LinearNDInterpolator

from fg3dgs_jax.clip import processed
from fg3dgs_jax.clip.format import HEAD_LABELS, LABELS, MOUTH_LABELS
from fg3dgs_jax.synthetic import head, landmarks
from fg3dgs_jax.training import first_gaussians

POSE = "jaw spread round closure brow_up brow_in wide squint blink gaze_x gaze_y".split()


@pytest.fixture(scope="module")
def clip(subject):
    return processed.load_clip(subject)


@pytest.fixture(scope="module")
def mesh(clip):
    return first_gaussians.face_mesh(clip)


def lifted(clip, mesh, region, classes, num=2000):
    frames = clip.split("train")
    return first_gaussians.lift(np.random.default_rng(0), clip, mesh, frames, region, classes, num)


def behind(mesh, points):
    """How far behind the mesh points [N, 3] lie in metres, NaN beside it; the head looks to -z."""
    return points[:, 2] - LinearNDInterpolator(mesh[:, :2], mesh[:, 2])(points[:, :2])


def test_mesh_is_the_head_that_was_filmed(mesh):
    pose = dict.fromkeys(POSE, jnp.float32(0.0))
    still = landmarks.world_points(pose, head.still_head()["skin"])
    away = np.linalg.norm(mesh - np.asarray(still), axis=-1)
    assert mesh.shape == (478, 3) and mesh[:, 2].max() < -0.02  # its origin is inside the head
    assert np.median(away) < 0.004
    assert away[list(landmarks.MIDLINE)].max() < 0.004  # of what the face does not move


def test_points_of_the_face_lie_on_it(clip, mesh):
    points, colors = lifted(clip, mesh, "face", HEAD_LABELS)
    assert points.shape == colors.shape == (2000, 3)
    away = behind(mesh, points)
    on_it = np.isfinite(away)
    assert 0.3 < on_it.mean() < 0.95  # the rest is hair and ears, on the ellipsoid
    assert np.median(np.abs(away[on_it])) < 0.004
    assert (np.linalg.norm(points / first_gaussians.HEAD_RADII, axis=-1)[~on_it] < 1.5).all()


def test_a_mouth_lies_behind_the_lips(clip, mesh):
    away = behind(mesh, lifted(clip, mesh, "mouth", MOUTH_LABELS)[0])
    assert 0.004 < np.nanmedian(away) < 0.012


def test_what_no_frame_shows_is_named(clip, mesh):
    with pytest.raises(ValueError, match="no training frame shows the eyes; expected some pixels"):
        lifted(clip, mesh, "eyes", (LABELS["glasses"],))
