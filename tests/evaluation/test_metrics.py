"""Metrics against closed forms, and mouth openings against painted mouths."""

import numpy as np
import pytest

from fg3dgs_jax.avatar import play
from fg3dgs_jax.evaluation import metrics, report
from fg3dgs_jax.lipsync import openings as openings_lib
from tests import fake_avatar


def test_psnr_of_a_constant_error_and_its_cap():
    a = np.full((8, 8, 3), 0.5, np.float32)
    assert metrics.psnr(a, a + 0.1) == pytest.approx(20.0, abs=1e-4)
    assert metrics.psnr(a, a) == metrics.PSNR_CAP


def test_box_psnr_sees_only_the_box():
    a = np.zeros((10, 10, 3))
    b = a.copy()
    b[:5] = 1.0
    assert metrics.box_psnr(a, b, (5, 10, 0, 10)) == metrics.PSNR_CAP
    assert metrics.box_psnr(a, b, (0, 5, 2, 4)) == pytest.approx(0.0)


def test_ssim_against_direct_sums():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 13, 15, 3))
    b = 0.7 * a + 0.3 * b
    g = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(g, g) / g.sum() ** 2

    def blur(x):
        padded = np.pad(x, ((5, 5), (5, 5), (0, 0)))
        patches = np.lib.stride_tricks.sliding_window_view(padded, (11, 11), (0, 1))
        return np.einsum("hwcij,ij->hwc", patches, window)

    ma, mb = blur(a), blur(b)
    va, vb, cab = blur(a * a) - ma**2, blur(b * b) - mb**2, blur(a * b) - ma * mb
    expected = (2 * ma * mb + 1e-4) * (2 * cab + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
    assert metrics.ssim(a, b) == pytest.approx(expected.mean(), abs=1e-10)
    assert metrics.ssim(a, a) == pytest.approx(1.0)


def test_lmd_ignores_translation_and_measures_shape():
    points = np.random.default_rng(1).random((20, 2)) * 50
    assert metrics.lmd(points, points + [7.0, -3.0]) == pytest.approx(0.0, abs=1e-9)
    moved = points.copy()
    moved[0, 0] += 20.0  # the mean moves by 1, the point by 19 against it
    assert metrics.lmd(points, moved) == pytest.approx((19 * 1 + 19) / 20)
    mesh = np.random.default_rng(2).random((478, 2))
    other = mesh.copy()
    other[200] += 9.0  # not a lip point
    assert metrics.lmd(mesh, other) == 0.0


def test_the_mean_is_the_best_still_image():
    frames = np.random.default_rng(3).integers(0, 256, (5, 6, 6, 3), np.uint8)
    still = metrics.best_still_image(frames)

    def error(image):
        return np.mean((frames / 255.0 - image) ** 2)

    assert error(still) < min(error(still + 0.01), error(still - 0.01), error(frames[0] / 255.0))


@pytest.fixture(scope="module")
def painted():
    frames, labels, gaps = zip(*(fake_avatar.paint(o) for o in np.linspace(0, 1, 15)), strict=True)
    boxes = np.array([(34, 44 + g, 18, 46) for g in gaps])
    boxes = openings_lib.steady_boxes(boxes, 64, 64)
    return np.stack(frames), np.stack(labels), np.array(gaps), boxes


def test_openings_of_painted_mouths_are_counted_exactly(painted):
    frames, labels, gaps, boxes = painted
    colours = openings_lib.fit_mouth_colours(frames, labels, boxes)
    area = (boxes[0, 1] - boxes[0, 0]) * (boxes[0, 3] - boxes[0, 2])
    measured = [
        openings_lib.mouth_opening(f, b, colours) for f, b in zip(frames, boxes, strict=True)
    ]
    np.testing.assert_allclose(measured, gaps * 24 / area)
    floats = [
        openings_lib.mouth_opening(f.astype(np.float32) / 255, b, colours)
        for f, b in zip(frames, boxes, strict=True)
    ]
    np.testing.assert_allclose(measured, floats)


def test_a_still_picture_has_no_opening_curve(painted):
    frames, labels, _, boxes = painted
    colours = openings_lib.fit_mouth_colours(frames, labels, boxes)
    still = [openings_lib.mouth_opening(frames[7], b, colours) for b in boxes]
    assert len(set(still)) == 1, (
        "boxes that follow the truth would lend its motion to a still picture"
    )


def test_no_colours_without_an_open_mouth(painted):
    frames, labels, _, boxes = painted
    assert openings_lib.fit_mouth_colours(frames[:1], labels[:1], boxes[:1]) is None


def test_steady_boxes_have_one_size_and_stay_inside():
    boxes = np.array([(50, 60, 0, 20), (55, 64, 40, 64), (48, 58, 10, 30)])
    steady = openings_lib.steady_boxes(boxes, 64, 64)
    assert len({(r1 - r0, c1 - c0) for r0, r1, c0, c1 in steady.tolist()}) == 1
    assert steady.min() >= 0 and steady.max() <= 64


def test_correlation_of_a_curve_with_itself_its_mirror_and_a_constant():
    curve = np.random.default_rng(4).random(50)
    assert openings_lib.correlation(curve, curve) == pytest.approx(1.0)
    assert openings_lib.correlation(curve, -curve) == pytest.approx(-1.0)
    assert openings_lib.correlation(curve, np.ones(50)) is None


def test_the_true_sound_beats_the_shifted_one_only_where_the_mouth_follows_it():
    samples = fake_avatar.speech(8, seed=5)
    follows = openings_lib.envelope(samples, 200) + np.random.default_rng(6).normal(size=200) * 0.02
    found = openings_lib.check(follows, samples)
    assert found["envelope_correlation"] > 0.9
    assert found["envelope_correlation_shifted"]["share_beaten"] == 1.0
    assert abs(found["envelope_correlation_shifted"]["mean"]) < 0.2
    assert found["envelope_correlation_shifted"]["shifts"] == 200 - 2 * openings_lib.MIN_SHIFT + 1
    other = openings_lib.envelope(fake_avatar.speech(8, seed=7), 200)
    assert abs(openings_lib.check(other, samples)["envelope_correlation"]) < 0.5


def test_envelope_of_a_burst_and_of_missing_sound():
    samples = np.zeros(6400, np.int16)
    samples[3200:3840] = 16384  # frame 5, half of full scale
    loudness = openings_lib.envelope(samples, 12)
    np.testing.assert_allclose(loudness[4:7], np.sqrt(0.5) / 3)
    assert np.count_nonzero(loudness) == 3


def test_a_late_mouth_is_told_by_how_much():
    samples = fake_avatar.speech(8, seed=8)
    late = np.roll(openings_lib.envelope(samples, 200), 3)
    assert openings_lib.check(late, samples)["envelope_lag"]["frames"] == 3


def test_check_of_a_very_short_curve_has_no_shifts():
    assert (
        openings_lib.check(np.arange(10.0), fake_avatar.speech(1))["envelope_correlation_shifted"]
        is None
    )


def test_ping_pong_never_jumps():
    np.testing.assert_array_equal(play.ping_pong(9, 4), [0, 1, 2, 3, 2, 1, 0, 1, 2])
    assert np.abs(np.diff(play.ping_pong(1000, 37))).max() == 1
    np.testing.assert_array_equal(play.ping_pong(3, 1), [0, 0, 0])
    with pytest.raises(ValueError, match="no frames"):
        play.ping_pong(3, 0)


def test_the_contact_sheet_shows_the_extremes():
    openings = np.sin(np.arange(40.0))
    blinks = np.zeros(40)
    blinks[17] = 1.0
    chosen = report.choose_frames(openings, blinks)
    assert {int(openings.argmax()), int(openings.argmin()), 17} <= set(chosen) and len(chosen) == 8
    assert len(report.choose_frames(np.zeros(3), None)) <= 3
