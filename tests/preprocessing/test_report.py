"""The page of a clip: re-projection, warnings, flicker, and that it stands alone."""

import base64
import re

import cv2
import numpy as np

from fg3dgs_jax.clip import av_offset
from fg3dgs_jax.clip.format import LABELS
from fg3dgs_jax.preprocessing import resume
from fg3dgs_jax.preprocessing.report import page as page_lib
from fg3dgs_jax.preprocessing.report import pictures
from tests.preprocessing.test_labels import landmarks


def test_a_head_point_is_projected_by_its_pose():
    pose = np.eye(4)[None].repeat(2, 0)
    pose[:, 2, 3], pose[1, 0, 3] = 1.0, 0.1
    found = page_lib.project(pose, np.array([[0.0, 0.05, 0.0]]), 500.0, np.array([128, 100]))
    np.testing.assert_allclose(found[:, 0], [[128, 125], [178, 125]])


def test_a_blinking_part_is_measured_and_warned_of():
    labels = np.full((30, 64, 64), LABELS["skin"], np.uint8)
    labels[:, :20] = LABELS["hair"]
    points = np.repeat(landmarks()[None], 30, 0)
    points += np.random.default_rng(0).normal(0, 9, points.shape[1:])
    still = page_lib.flicker(labels, points)
    labels[::2, :5] = 0
    shares = page_lib.flicker(labels, points)
    assert still == {"head": 0, "hair": 0} and shares["hair"] > 0.2
    valid, unsure = np.array([True, False]), av_offset.Offset(0.0, False, 0.0, 0.0, "noise")
    lines = list(page_lib._warnings(valid, np.array([0.01, 0.0]), shares, 0.0, unsure))
    assert len(lines) == 5 and "1 of 2 frames (0.04 to 0.08 s)" in lines[0]
    assert not list(page_lib._warnings(valid | True, np.full(2, 0.001), still, 0.5, unsure))


def test_what_is_certain_about_lips_and_sound_is_warned_of():
    def told(late):
        return list(page_lib._warnings(np.ones(9, bool), np.zeros(9), {}, 0.0, late))

    in_step = av_offset.Offset(0.01, True, 9.0, 0.0, "")
    assert not told(in_step)  # though loudness and opening hardly correlate
    (line,) = told(in_step._replace(seconds=0.28))
    assert "280 ms late" in line and "--av_offset 0.28" in line
    assert "hardly go together" in told(in_step._replace(certain=False))[0]


def test_frames_that_the_fit_loses_and_cuts_are_named_by_their_time():
    error = np.zeros(100)
    error[50:55] = 0.03
    in_step = av_offset.Offset(0.0, True, 9.0, 0.0, "")
    (line,) = page_lib._warnings(np.ones(100, bool), error, {}, 0.5, in_step)
    assert "5 frames (2.00 to 2.20 s)" in line
    assert page_lib.cuts_in_words([20, 50]) == "another scene begins at 0.80 s, 2.00 s"
    assert page_lib.cuts_in_words(list(range(25, 400, 25))).endswith("10.00 s and 5 more")


def test_the_page_stands_alone(tmp_path):
    picture = np.full((40, 60, 3), (200, 30, 60), np.uint8)
    path = pictures.write_report(
        tmp_path,
        {"clip": {"source": "<a>.mp4"}, "check": {"cuts": "bad: <3>"}},
        {"Plate": picture},
        ["look & see"],
    )
    page = path.read_text()
    assert "&lt;a&gt;.mp4" in page and "look &amp; see" in page and "<td>&lt;a" in page
    assert '<td class="bad">bad: &lt;3&gt;</td>' in page
    (source,) = re.findall(r'src="([^"]+)"', page)  # nothing else is loaded
    data = base64.b64decode(source.removeprefix("data:image/png;base64,"))  # the smaller here
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(shown.astype(int) - picture).max() < 12
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_steps_are_timed(tmp_path):
    made = resume.Folder(tmp_path, {"frames": 3})
    assert not made.has("pose", ())
    made.finish()
    assert 0 <= resume.Folder(tmp_path, {"frames": 3}).seconds["pose"] < 5
