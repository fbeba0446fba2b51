import io
import sys

from fg3dgs_jax.media import progress as progress_lib
from fg3dgs_jax.media.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_one_plain_line_at_the_end(capsys):
    assert list(progress(range(5), desc="frames", unit="frame")) == list(range(5))
    log = capsys.readouterr().err
    assert log.startswith("frames: 100% 5/5 [")
    assert log.count("\n") == 1 and log.endswith("\n") and "\r" not in log


def test_a_log_gets_a_line_whenever_one_is_due(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress_lib.time, "monotonic", lambda: now[0])
    with progress(desc="train", total=100, unit="step") as bar:
        for step in range(4):
            now[0] += 6.0
            bar.update(25)
            bar.set_postfix(loss=step)
    log = capsys.readouterr().err
    lines = log.splitlines()
    assert len(lines) == 3 and "\r" not in log
    assert "50/100" in lines[0] and "loss=3" in lines[-1] and "100/100" in lines[-1]


def test_a_terminal_gets_the_usual_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    list(progress(range(5), desc="frames"))
    assert "\r" in sys.stderr.getvalue() and "5/5" in sys.stderr.getvalue()


def test_work_that_resumes_counts_from_where_it_was(capsys):
    with progress(desc="labels", total=10, initial=8) as bar:
        bar.update(2)
    assert "10/10" in capsys.readouterr().err


def test_a_disabled_bar_shows_nothing(capsys):
    assert list(progress(iter("ab"), desc="letters", enabled=False)) == ["a", "b"]
    assert capsys.readouterr().err == ""
