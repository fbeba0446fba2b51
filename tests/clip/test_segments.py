import numpy as np

from fg3dgs_jax.clip.segments import most_informative


def test_the_run_with_the_only_blink_and_the_widest_mouth_is_chosen():
    scores = np.zeros((200, 2))
    scores[:, 0] = np.arange(200) % 4 / 10
    scores[120:125, 0] = 1.0  # wide
    scores[131, 1] = 1.0  # a blink
    found = most_informative(scores, seconds=1, fps=25)
    assert found.stop - found.start == 25
    assert found.start <= 120 and found.stop > 131


def test_of_equals_the_one_that_shows_more_of_what_is_rare():
    scores = np.zeros((100, 1))
    scores[10], scores[60:64] = 1.0, 1.0
    found = most_informative(scores, seconds=0.4, fps=25)
    assert found.start <= 60 and found.stop >= 64


def test_no_length_or_too_much_is_everything():
    assert most_informative(np.zeros((10, 1)), 0, 25) == slice(0, 10)
    assert most_informative(np.zeros((10, 1)), 4, 25) == slice(0, 10)
