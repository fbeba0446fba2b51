"""Mouths that speak: what must hold for any table of phonemes."""

import numpy as np
import pytest

from fg3dgs_jax.synthetic import articulation
from fg3dgs_jax.synthetic.articulation import Phone, Style, lip_motion

OPENING, WIDTH, PROTRUSION, JAW, TEETH = range(5)


def _spoken(names, length=0.12, before=1.0, after=1.5, **options):
    starts = [before + length * k for k in range(len(names))]
    end = before + length * len(names)
    phones = [Phone(n, s) for n, s in zip(names, starts, strict=True)] + [Phone("", end)]
    return lip_motion(phones, end + after, **options), lambda k: int((starts[k] + length / 2) * 25)


@pytest.mark.parametrize("consonant", ["p", "b", "m", "pʲ"])
def test_lips_meet_for_bilabials(consonant):
    motion, frame = _spoken(["a", consonant, "a"])
    at = frame(1)
    assert motion[at - 1 : at + 2, OPENING].min() < 0.1 * motion[frame(0), OPENING]
    assert motion[frame(0), OPENING] > 0.6


def test_other_consonants_leave_lips_apart():
    for consonant in ("t", "k", "s", "l", "h"):
        motion, frame = _spoken(["a", consonant, "a"])
        assert motion[frame(1), OPENING] > 0.2, consonant


def test_lower_lip_rises_to_the_teeth_for_f():
    (closed, frame), (opened, _) = _spoken(["a", "f", "a"]), _spoken(["a", "t", "a"])
    at = slice(frame(1) - 1, frame(1) + 2)
    assert 0.02 < closed[at, OPENING].min() < 0.6 * opened[at, OPENING].min()


def test_vowels_are_in_order():
    peaks = {v: _spoken([v], length=0.4)[0][30] for v in ("a", "ɛ", "i", "o", "u")}
    assert peaks["a"][OPENING] > peaks["ɛ"][OPENING] > peaks["i"][OPENING] > peaks["u"][OPENING]
    assert peaks["i"][WIDTH] > peaks["ɛ"][WIDTH] > peaks["a"][WIDTH] > 0 > peaks["o"][WIDTH]
    assert peaks["u"][WIDTH] < peaks["o"][WIDTH]
    assert peaks["u"][PROTRUSION] > peaks["i"][PROTRUSION] > peaks["a"][PROTRUSION]


def test_rounding_comes_early():
    rounded, frame = _spoken(["i", "s", "t", "u"], length=0.1)
    plain, _ = _spoken(["i", "s", "t", "i"], length=0.1)
    assert rounded[frame(2), WIDTH] < plain[frame(2), WIDTH] - 0.2
    assert abs(rounded[frame(0), WIDTH] - plain[frame(0), WIDTH]) < 0.2


def test_diphthongs_move():
    motion, _ = _spoken(["aɪ"], length=0.4)
    assert motion[28, OPENING] > motion[33, OPENING] + 0.2
    assert motion[33, WIDTH] > motion[28, WIDTH] + 0.1


def test_weak_sounds_take_the_shape_of_their_neighbours():
    between = [_spoken([v, "h", v])[0] for v in ("i", "u")]
    frame = _spoken(["i", "h", "i"])[1]
    assert between[0][frame(1), WIDTH] > 0.5 and between[1][frame(1), WIDTH] < -0.5


def test_effort_opens_wider_but_closes_as_well():
    loud, frame = _spoken(["a", "m", "a"], effort=np.full(100, 1.3))
    soft, _ = _spoken(["a", "m", "a"], effort=np.full(100, 0.7))
    assert loud[frame(0), OPENING] > 1.5 * soft[frame(0), OPENING]
    assert loud[frame(1) - 1 : frame(1) + 2, OPENING].min() < 0.12


def test_pauses_close_slowly_and_open_before_speech():
    motion, frame = _spoken(["a", "t", "a"], before=1.6, after=1.6)
    assert motion[:25, OPENING].max() < 0.05  # at rest
    assert motion[38, OPENING] > 0.1  # 60 ms before the first sound
    tail = motion[frame(2) + 2 :, OPENING]
    assert (np.diff(tail) < 1e-3).all() and tail[0] > 0.1 and tail[-5:].max() < 0.05


def test_nothing_spoken_moves_nothing():
    for phones in ([], [Phone("", 0.0)]):
        motion = lip_motion(phones, 2.0)
        assert motion.shape == (50, len(articulation.CURVES)) and motion.dtype == np.float32
        assert np.ptp(motion, axis=0).max() < 1e-6 and motion[0, OPENING] < 0.01


@pytest.mark.parametrize(
    ("name", "letters"),
    [("aɪ", "aɪ"), ("tʃ", "tʃ"), ("uː", "u"), ("ɑ̃", "ɑ"), ("ç", "ç"), ("ä", "a"), ("s.", "s")],
)
def test_names_are_read_letter_by_letter(name, letters):
    expected = tuple(articulation.GESTURES[k] for k in letters)
    assert articulation.gestures(name) == expected


def test_marks_change_a_gesture():
    assert len(articulation.gestures("tʲ")) == 2
    assert articulation.gestures("kʷ")[0].protrusion > articulation.gestures("k")[0].protrusion
    assert len(articulation.gestures("??")) == 1


def test_haste_blends():
    calm, _ = _spoken(["i", "u", "i", "u"], style=Style(haste=0.7))
    hasty, _ = _spoken(["i", "u", "i", "u"], style=Style(haste=1.5))
    middle = slice(26, 36)
    assert np.ptp(calm[middle, WIDTH]) > np.ptp(hasty[middle, WIDTH])
