"""Clips of synthetic speech: repeatable, with one row of curves for each frame."""

import ctypes
import importlib.util
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from fg3dgs_jax.synthetic import nonsense
from fg3dgs_jax.synthetic.articulation import CURVES, gestures

PATH = pathlib.Path(__file__).parents[2] / "scripts" / "make_lip_prior.py"
spec = importlib.util.spec_from_file_location("make_lip_prior", PATH)
make_lip_prior = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_lip_prior)


def _has_espeak():
    try:
        ctypes.CDLL("libespeak-ng.so.1")
    except OSError:
        return False
    return True


needs_espeak = pytest.mark.skipif(not _has_espeak(), reason="libespeak-ng1 is not installed")


DIGEST = f"""
import hashlib, sys
sys.path.insert(0, {str(PATH.parent)!r})
import make_lip_prior
for made in make_lip_prior.records(0.8, seed=3):
    print(hashlib.sha256(made.samples.tobytes() + made.curves.tobytes()).hexdigest())
"""


@needs_espeak
def test_a_program_repeats_by_seed():
    # One run each: the library keeps something of what it said before.
    first, again = (
        subprocess.run([sys.executable, "-c", DIGEST], check=True, capture_output=True).stdout
        for _ in range(2)
    )
    assert first == again and first.count(b"\n") >= 2


@needs_espeak
def test_every_frame_has_its_curves():
    for made in make_lip_prior.records(0.8, seed=3):
        assert made.samples.dtype == np.int16
        assert made.curves.shape == (len(made.samples) // 640, len(CURVES))
        assert np.isfinite(made.curves).all() and made.curves[:, 0].min() > -1e-6


@needs_espeak
def test_lips_move_with_speech():
    speaker = make_lip_prior.speaker()
    clip = make_lip_prior.speak(speaker, np.random.default_rng(0))
    loud = np.abs(clip.samples).reshape(-1, 640).max(1) > 0.05
    assert clip.curves[loud, 0].mean() > clip.curves[~loud, 0].mean()
    assert np.ptp(clip.curves[:, 0]) > 0.5


@needs_espeak
@pytest.mark.parametrize("language", nonsense.LANGUAGES)
def test_espeak_names_sounds_that_the_table_knows(language):
    speaker, rng = make_lip_prior.speaker(), np.random.default_rng(1)
    voice = nonsense.LANGUAGES[language].voice
    _, phones = speaker.say(nonsense.text(language, 60, rng), voice, 150, 50, 50)
    names = [phone.name for phone in phones if phone.name]
    unknown = {n for n in names if gestures(n) == gestures("?")}
    assert len(names) > 100 and not unknown, unknown


def test_without_speech_lips_rest():
    made = make_lip_prior.unspoken(np.random.default_rng(0))
    assert np.abs(made.samples).max() > 300 and np.ptp(made.curves, axis=0).max() < 1e-6


def test_without_the_library_one_line_says_what_to_install(monkeypatch):
    def absent(name):
        raise OSError(name)

    monkeypatch.setattr(make_lip_prior.ctypes, "CDLL", absent)
    with pytest.raises(SystemExit, match="apt install libespeak-ng1"):
        make_lip_prior.Speaker()
