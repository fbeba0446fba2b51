"""One writer a folder, and no lock that outlives its process."""

import json
import os
import socket
import subprocess
import sys

import pytest

from fg3dgs_jax.system import lock

HOLD = """
import sys
from fg3dgs_jax.system import lock
with lock.held(sys.argv[1], "train"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of `tmp_path`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_until_the_first_has_ended(tmp_path, holder, capsys):
    with pytest.raises(lock.Locked) as caught, lock.held(tmp_path, "train"):
        pass
    line = str(caught.value)
    for part in (str(tmp_path), str(holder.pid), socket.gethostname(), "train"):
        assert part in line
    holder.kill()
    holder.wait()
    with lock.held(tmp_path, "train"):
        told = capsys.readouterr().err
        assert str(holder.pid) in told and "taken over" in told and told.count("\n") == 1
        assert json.loads((tmp_path / lock.NAME).read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_is_given_back_leaves_nothing_to_tell(tmp_path, capsys):
    for _ in range(2):
        with lock.held(tmp_path / "new", "train"):
            assert (tmp_path / "new").is_dir()
        assert not (tmp_path / "new").exists()
    with lock.held(tmp_path / "new", "train"):
        (tmp_path / "new" / "file").write_text("")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["file"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("pid, host, is_free", [(None, None, True), (1, None, False), (1, "x", 0)])
def test_without_flock_the_file_is_the_lock(tmp_path, monkeypatch, capsys, pid, host, is_free):
    monkeypatch.setattr(lock, "fcntl", None)
    if pid is None:  # of a process that has ended
        with subprocess.Popen([sys.executable, "-c", ""]) as process:
            pid = process.pid
    record = {"pid": pid, "host": host or socket.gethostname(), "program": "train", "since": "?"}
    (tmp_path / lock.NAME).write_text(json.dumps(record))
    if is_free:
        with lock.held(tmp_path, "train"):
            assert "taken over" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []
        return
    with pytest.raises(lock.Locked, match=r"process 1 on .*; if it has ended, delete .*\.lock"):
        with lock.held(tmp_path, "train"):
            pass
    assert (tmp_path / lock.NAME).exists()
