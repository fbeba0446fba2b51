"""Signals end a program tidily."""

import os
import signal

import pytest

from fg3dgs_jax.media.whole_files import whole
from fg3dgs_jax.system import faults, stop


@pytest.mark.parametrize("number", stop.SIGNALS)
def test_a_signal_is_one_line_exit_code_130_and_no_part_file(number, tmp_path, capsys):
    before = signal.getsignal(number)

    def work():
        with whole(tmp_path / "a.json") as part:
            part.write_text("ha")
            os.kill(os.getpid(), number)
        return 0

    assert faults.run("train", work) == 130
    line = capsys.readouterr().err
    assert line == f"train: stopped by {number.name}; nothing half-made is left\n"
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(number) is before


def test_gently_the_first_signal_is_noted_and_the_second_stops(capsys):
    with pytest.raises(stop.Stopped), stop.gently("stopping after this step") as request:
        assert request.name is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.name == "SIGTERM"
        assert "SIGTERM: stopping after this step; once more" in capsys.readouterr().err
        os.kill(os.getpid(), signal.SIGINT)


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop.at_once():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
