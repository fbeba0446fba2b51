"""The ruler of driven lips, on curves whose agreement is known by how they were made."""

import numpy as np
import pytest

from fg3dgs_jax.clip.lips import LipCurves
from fg3dgs_jax.lipsync import ruler

FRAMES = 300
BILABIALS = np.arange(20, 290, 30)  # frames at which the lips shut


def _talk(seed=0, frames=FRAMES, closures=BILABIALS):
    """Lips that move at random between 0.07 and 0.17 eye distances, and shut for three frames."""
    rng = np.random.default_rng(seed)
    smooth = [np.convolve(rng.normal(size=frames + 4), np.ones(5) / 5, "valid") for _ in range(3)]
    opening = np.clip(0.12 + 0.05 * smooth[0], 0.07, 0.17)
    return LipCurves(_shut(opening, closures), 0.6 + 0.05 * smooth[1], 0.1 + 0.01 * smooth[2])


def _shut(opening, at, length=3):
    opening = opening.copy()
    for frame in at:
        opening[max(frame, 0) : frame + length] = 0.01
    return opening


def _later(curves, frames):
    return LipCurves(*(np.roll(c, frames) for c in curves))


@pytest.mark.parametrize("lag", [-9, -1, 0, 4, 9])
def test_a_shifted_copy_has_its_lag_and_correlation_one(lag):
    truth = _talk()
    result = ruler.compare(truth, _later(truth, lag))
    assert result.lag == lag and result.frames == FRAMES - abs(lag)
    assert all(value == pytest.approx(1.0) for value in result.correlations.values())
    assert all(value == pytest.approx(1.0) for value in result.spreads.values())
    assert result.closures.recall == result.closures.precision == result.closures.f1 == 1.0


def test_a_lag_out_of_reach_is_not_found():
    truth = _talk()
    result = ruler.compare(truth, _later(truth, 14))
    assert abs(result.lag) <= ruler.REACH and result.correlations["opening"] < 0.5


def test_one_lag_for_all_curves_and_protrusion_has_no_say():
    truth = _talk()
    render = _later(truth, 3)._replace(protrusion=np.roll(truth.protrusion, -6))
    result = ruler.compare(truth, render)
    assert result.lag == 3 and result.correlations["protrusion"] < 0.5


def test_half_the_amplitude_is_half_the_spread_and_the_same_correlation_and_closures():
    truth = _talk()
    result = ruler.compare(truth, LipCurves(*(0.5 * c for c in truth)))
    assert all(value == pytest.approx(0.5) for value in result.spreads.values())
    assert all(value == pytest.approx(1.0) for value in result.correlations.values())
    assert result.closures.f1 == 1.0


def test_known_lateness_is_taken_out_of_the_lag_and_widens_its_reach():
    truth = _talk()
    late = _later(truth, 14)  # two frames more than the sound is late
    result = ruler.compare(truth, late, late_frames=12.3)
    assert result.lag == 2 and result.correlations["opening"] == pytest.approx(1.0)
    at = ruler.compare(truth, late, late_frames=12.3, at_lag=2).correlations_at
    assert at == result.correlations
    assert ruler.compare(truth, late, 12.3, at_lag=0).correlations_at["opening"] < 0.9


def test_the_correlation_at_a_given_lag_is_not_the_best_one():
    truth = _talk()
    result = ruler.compare(truth, _later(truth, 5), at_lag=0)
    assert result.correlations["width"] == pytest.approx(1.0)
    assert result.correlations_at["width"] < 0.3
    assert result.figures()["width_at_median_lag"] == result.correlations_at["width"]
    assert ruler.compare(truth, truth).figures()["width_at_median_lag"] is None


def test_a_missed_bilabial_lowers_recall_and_only_that():
    truth = _talk()
    render = truth._replace(opening=_talk(closures=BILABIALS[1:]).opening)
    closures = ruler.compare(truth, render).closures
    assert closures.real == 9 and closures.rendered == 8
    assert closures.recall == pytest.approx(8 / 9) and closures.precision == 1.0
    assert closures.f1 == pytest.approx(2 * (8 / 9) / (1 + 8 / 9))


def test_a_closure_without_cause_lowers_precision_and_only_that():
    truth = _talk()
    closures = ruler.compare(truth, truth._replace(opening=_shut(truth.opening, [65]))).closures
    assert closures.rendered == 10 and closures.recall == 1.0
    assert closures.precision == pytest.approx(0.9)


@pytest.mark.parametrize(("shift", "recall"), [(-2, 1.0), (2, 1.0), (3, 0.0)])
def test_a_closure_may_be_a_frame_beside_the_real_one(shift, recall):
    """Runs of three frames: their middles are one frame apart from the run where they differ by 2.

    The lag is held at 0.
    """
    truth = _talk()
    render = _shut(np.where(truth.opening < 0.05, 0.1, truth.opening), BILABIALS + shift)
    assert ruler.match_closures(truth.opening, render).recall == recall


def test_a_mouth_that_stays_shut_has_not_made_all_closures():
    truth = _talk()
    closures = ruler.match_closures(truth.opening, np.full(FRAMES, 0.01))
    assert closures.rendered == 1 and closures.hit <= 1
    assert closures.f1 < 0.3


def test_a_mouth_that_never_shuts_has_no_closures_of_its_own_measure():
    truth = _talk()
    closures = ruler.match_closures(truth.opening, 0.06 + 0.5 * truth.opening)
    assert closures.rendered == 0 and closures.precision is None
    assert closures.recall == 0.0 and closures.f1 == 0.0


def test_jitter_of_lips_that_hardly_move_is_no_closure_each():
    rng = np.random.default_rng(0)
    assert len(ruler.shut_runs(0.01 + 0.001 * rng.normal(size=FRAMES))) == 1
    assert len(ruler.shut_runs(0.08 + 0.001 * rng.normal(size=FRAMES))) == 0


def test_lips_that_open_a_little_are_still_in_the_same_closure():
    opening = np.full(100, 0.15)
    opening[20:40] = 0.01
    opening[30] = 0.01 + 0.2 * 0.14  # between SHUT and REOPENED
    assert ruler.shut_runs(opening).tolist() == [[20, 40]]
    opening[30] = 0.01 + 0.3 * 0.14
    assert ruler.shut_runs(opening).tolist() == [[20, 30], [31, 40]]


def test_frames_without_a_face_do_not_count():
    truth, other = _talk(), _talk(seed=5)
    gap = slice(100, 160)
    render = LipCurves(*(c.copy() for c in _later(truth, 2)))
    for mine, strange in zip(render, other, strict=True):
        mine[gap] = strange[gap]
    assert ruler.compare(truth, render).correlations["width"] < 0.95
    for curve in render:
        curve[gap] = np.nan
    result = ruler.compare(truth, render)
    assert result.lag == 2 and result.frames == FRAMES - 2 - 60
    assert result.correlations["width"] == pytest.approx(1.0)
    # The two closures in the gap, at 110 and 140, are held against nobody.
    assert result.closures.real == 7 and result.closures.recall == 1.0


def test_constant_curves_are_none_and_never_nan():
    truth = _talk()
    still = LipCurves(*(np.full(FRAMES, value) for value in (0.1, 0.6, 0.1)))
    result = ruler.compare(truth, still)
    assert result.lag is None and set(result.correlations.values()) == {None}
    assert list(result.spreads.values()) == pytest.approx([0.0] * 3, abs=1e-9)
    assert result.closures.recall == 0.0
    result = ruler.compare(still, truth)
    assert set(result.spreads.values()) == {None} and result.closures.recall is None
    only = ruler.compare(truth, still._replace(width=np.roll(truth.width, 3)))
    assert only.lag == 3 and only.correlations["opening"] is None


@pytest.mark.parametrize("frames", [0, 1, 24])
def test_less_than_a_second_is_not_judged(frames):
    short = LipCurves(*(c[:frames] for c in _talk()))
    result = ruler.compare(short, short)
    assert result.lag is None and result.closures.f1 is None
    assert set(result.correlations.values()) == set(result.spreads.values()) == {None}


def test_a_short_clip_looks_at_the_lags_that_leave_a_second():
    short = LipCurves(*(c[:28] for c in _talk()))
    assert ruler.compare(short, short).lag == 0
    far = ruler.compare(short, _later(short, 8))
    assert abs(far.lag) <= 3 and far.frames >= ruler.MIN_FRAMES


def test_without_a_face_there_is_nothing():
    blind = LipCurves(*(np.full(FRAMES, np.nan) for _ in range(3)))
    result = ruler.compare(_talk(), blind)
    assert result.frames == 0 and result.lag is None and result.closures.real == 0


def test_chance_of_unrelated_lips_is_above_zero_by_the_choice_of_lag_and_far_below_one():
    rng = np.random.default_rng(0)
    talks = [_talk(seed, closures=rng.choice(280, 9, replace=False)) for seed in range(8)]
    pairs = [(talk, talk) for talk in talks]
    level = ruler.chance(pairs)
    assert 0.02 < level["opening"] < 0.35 and 0.02 < level["width"] < 0.35
    assert abs(level["protrusion"]) < 0.05  # the lag is not chosen by it
    alone = ruler.chance(pairs[:1])  # a copy of the truth, but far away from where it belongs
    assert 0.0 < alone["width"] < 0.35


def test_chance_of_a_video_too_short_to_be_turned_round_is_unknown():
    short = LipCurves(*(c[:80] for c in _talk()))
    assert set(ruler.chance([(short, short)]).values()) == {None}
    assert set(ruler.chance([]).values()) == {None}


def test_chance_has_a_bounded_number_of_pairs(monkeypatch):
    calls = []
    compare = ruler.compare
    monkeypatch.setattr(ruler, "compare", lambda *a: calls.append(a) or compare(*a))
    monkeypatch.setattr(ruler, "MAX_CHANCE_PAIRS", 10)
    ruler.chance([(_talk(seed), _talk(seed)) for seed in range(6)])
    assert 5 < len(calls) <= 10
    assert all(truth is not render for truth, render in calls)


def test_the_summary_has_means_of_what_is_known_and_how_lags_agree():
    truth = _talk()
    still = LipCurves(*(np.full(FRAMES, value) for value in (0.1, 0.6, 0.1)))
    videos = [ruler.compare(truth, _later(truth, lag)) for lag in (2, 3, 3, 8)]
    videos.append(ruler.compare(truth, still))
    mean = ruler.summary(videos)
    assert mean["videos"] == 5 and mean["median_lag"] == 3 and mean["near_median_lag"] == 3
    assert mean["opening"] == pytest.approx(1.0)  # the still one has none
    assert mean["opening_spread"] == pytest.approx(0.8) and mean["recall"] == pytest.approx(0.8)
    assert "lag" not in mean
    nothing = ruler.summary([])
    assert nothing["videos"] == 0 and nothing["median_lag"] is None
    assert set(nothing) == set(mean) and nothing["opening"] is None
