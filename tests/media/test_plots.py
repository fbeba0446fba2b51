"""Curves lie where their times are, over the sound."""

import cv2
import numpy as np
from matplotlib import colors

from fg3dgs_jax.media import plots

WIDTH, HEIGHT = 1200, 130


def _columns(picture, colour):
    """The columns in which a colour is seen."""
    rgb = np.rint(255 * np.array(colors.to_rgb(colour))).astype(int)
    return np.flatnonzero((np.abs(picture.astype(int) - rgb).max(-1) <= 6).any(0))


def test_strips_lie_over_the_sound_on_one_clock():
    t = np.arange(100)
    strip = plots.Strip("mouth", {"opening": np.where(t == 40, 1.0, 0.0)}, (0.0, 1.0))
    loud = np.where((t >= 20) & (t < 60), 1.0, 0.0)
    valid = ~((t >= 80) & (t < 85))
    picture = plots.plot_strips([strip, strip], loud, valid, [70], size=(WIDTH, HEIGHT))
    assert picture.shape == (2 * HEIGHT, WIDTH, 3) and picture.dtype == np.uint8
    sound, gap, cut = (_columns(picture, c) for c in (plots.SOUND, plots.GAP, plots.CUT))
    px = (sound[-1] - sound[0]) / 40  # a frame
    assert px > 8
    np.testing.assert_allclose(cut.mean(), sound[0] + 50 * px, atol=2 * px)
    np.testing.assert_allclose(gap.mean(), sound[0] + 62 * px, atol=2 * px)
    peak = _columns(picture[40:50, sound[0] :], "C0") + sound[0]
    np.testing.assert_allclose(peak.mean(), sound[0] + 20 * px, atol=2 * px)


def test_unknown_values_leave_a_gap():
    values = np.zeros(100)
    values[40:60] = np.nan
    picture = plots.plot_curves({"a": values, "b": np.ones(100)}, 25, WIDTH, HEIGHT)
    assert picture.shape == (2 * HEIGHT, WIDTH, 3)
    first, second = (_columns(picture, f"C{k}") for k in (0, 1))
    assert 0.7 < len(first) / len(second) < 0.85


def test_every_curve_over_shift_is_drawn(tmp_path):
    scores = {name: np.random.default_rng(k).random(31) for k, name in enumerate("ab")}
    picture = plots.plot_by_shift(scores, "title")
    assert picture.shape == (420, 760, 3)
    assert all(len(_columns(picture, f"C{k}")) > 300 for k in (0, 1))
    plots.write_png(str(tmp_path / "a.png"), picture)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a.png"))[..., ::-1], picture)
