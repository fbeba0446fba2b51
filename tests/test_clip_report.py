"""The page of a clip: re-projection, warnings, flicker, and that it stands alone."""

import base64
import re

import cv2
import numpy as np

from fg3dgs_jax.data import clip_report, folder, preview
from fg3dgs_jax.data.dataset import LABELS
from tests.test_parsing import landmarks


def test_a_head_point_is_projected_by_its_pose():
    pose = np.eye(4)[None].repeat(2, 0)
    pose[:, 2, 3], pose[1, 0, 3] = 1.0, 0.1
    found = clip_report.project(pose, np.array([[0.0, 0.05, 0.0]]), 500.0, np.array([128, 100]))
    np.testing.assert_allclose(found[:, 0], [[128, 125], [178, 125]])


def test_a_blinking_part_is_measured_and_warned_of():
    labels = np.full((30, 64, 64), LABELS["skin"], np.uint8)
    labels[:, :20] = LABELS["hair"]
    points = np.repeat(landmarks()[None], 30, 0)
    points += np.random.default_rng(0).normal(0, 9, points.shape[1:])
    still = clip_report.flicker(labels, points)
    labels[::2, :5] = 0
    shares = clip_report.flicker(labels, points)
    assert still == {"head": 0, "hair": 0} and shares["hair"] > 0.2
    lines = list(clip_report._warnings(np.array([True, False]), 0.01, shares, 0.0))
    assert len(lines) == 5 and "1 of 2 frames" in lines[0]
    assert not list(clip_report._warnings(np.ones(2, bool), 0.001, still, 0.5))


def test_the_page_stands_alone(tmp_path):
    picture = np.full((40, 60, 3), (200, 30, 60), np.uint8)
    path = preview.write_report(
        tmp_path, {"source": "<a>.mp4"}, {"Plate": picture}, ["look & see"], {"pose": 1.25}
    )
    page = path.read_text()
    assert "&lt;a&gt;.mp4" in page and "look &amp; see" in page and "1.2 s" in page
    (source,) = re.findall(r'src="([^"]+)"', page)  # nothing else is loaded
    data = base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(shown.astype(int) - picture).max() < 12
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_steps_are_timed(tmp_path):
    made = folder.Folder(tmp_path, {"frames": 3})
    assert not made.has("pose", ())
    made.finish("pose")
    assert 0 <= folder.Folder(tmp_path, {"frames": 3}).seconds["pose"] < 5
