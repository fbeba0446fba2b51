"""A GPU's lists grow with what pictures need: in powers of two, ahead of an overflow."""

import pytest

from fg3dgs_jax.rasterizer import CapacityMonitor, suggest_capacity


@pytest.mark.parametrize("need", [0, 1, 2, 3, 12, 13, 14, 26_214, 26_215, 155_000, 2**30])
def test_suggestion_is_the_least_power_of_two_with_a_fifth_to_spare(need):
    capacity = suggest_capacity(need)
    assert capacity.bit_count() == 1
    assert need <= 0.8 * capacity
    assert capacity == 1 or need > 0.8 * capacity / 2


def test_only_what_is_nearly_full_grows_and_never_shrinks():
    monitor = CapacityMonitor({"face": 1000, "eyes": 1000})
    before = monitor.capacities
    assert not monitor.update({"face": 800, "eyes": 0})
    assert monitor.update({"face": 801, "eyes": 700})
    assert monitor.capacities == {"face": 1024, "eyes": 1000}
    assert not monitor.update({"face": 10, "eyes": 10})
    assert monitor.update({"face": 5000, "eyes": 10})
    assert monitor.capacities == {"face": 8192, "eyes": 1000}
    assert before == {"face": 1000, "eyes": 1000}  # what a program was compiled with stays as it is


def test_what_is_not_watched_asks_for_nothing():
    assert not CapacityMonitor({}).update({"face": 10**9})
