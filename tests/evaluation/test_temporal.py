"""Temporal energies of made-up frames."""

import numpy as np
import pytest

from fg3dgs_jax.evaluation import temporal

SIZE = 40
LIPS, EYES = (24, 36, 10, 30), [(4, 10, 4, 16), (4, 10, 24, 36)]


def noise(count, seed=0, scale=0.1):
    rng = np.random.default_rng(seed)
    return (0.5 + scale * rng.normal(size=(count, SIZE, SIZE, 3))).astype(np.float32)


def watch(truth, render, index=None):
    index = np.arange(len(truth)) if index is None else np.array(index)
    boxes = np.tile(LIPS, (len(truth), 1)), np.tile(EYES, (len(truth), 1, 1))
    watcher = temporal.TemporalEnergy(index, *boxes)
    for pair in zip(truth, render, strict=True):
        watcher.add(*pair)
    return watcher.result()


def test_of_the_truth_of_a_still_and_of_twice_the_change():
    truth = noise(6)
    same, source = watch(truth, truth)
    assert "5 pairs" in source
    assert all(v == (1.0 if k.endswith("ratio") else 0.0) for k, v in same.items())
    still, _ = watch(truth, np.zeros_like(truth))
    assert all(v == (0.0 if k.endswith("ratio") else 1.0) for k, v in still.items())
    double, _ = watch(truth, 2 * truth)
    assert double["frame_ratio"] == pytest.approx(4.0, rel=1e-4)
    assert double["frame_excess"] == pytest.approx(1.0, rel=1e-4)


def test_flicker_of_its_own_adds_its_energy_where_it_is():
    truth, render = noise(80), noise(80)
    row0, row1, col0, col1 = LIPS
    render[:, row0:row1, col0:col1] += noise(80, seed=1)[:, row0:row1, col0:col1] - 0.5
    found, _ = watch(truth, render)
    # Independent and equally strong; 12 x 20 x 3 pixels of 80 frames average to about 1 %.
    assert found["lips_ratio"] == pytest.approx(2.0, rel=0.03)
    assert found["lips_excess"] == pytest.approx(1.0, rel=0.03)
    assert found["eyes_ratio"] == 1.0 and found["eyes_excess"] == 0.0
    share = (row1 - row0) * (col1 - col0) / SIZE**2
    assert found["frame_excess"] == pytest.approx(share, rel=0.03)


def test_frames_that_do_not_follow_each_other_are_no_pair():
    truth = noise(4)
    truth[2:] += 0.3
    found, source = watch(truth, truth, index=[3, 4, 9, 10])
    assert "2 pairs" in source and found["frame_ratio"] == 1.0
    assert watch(truth[:1], truth[:1]) == (None, "not measured: no two consecutive frames")


def test_where_the_truth_stands_still_there_is_no_quotient():
    found, _ = watch(np.ones((3, SIZE, SIZE, 3), np.float32), noise(3))
    assert set(found.values()) == {None}
