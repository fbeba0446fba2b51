"""The scripts for a borrowed machine with a GPU: their book-keeping, on a machine without one."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from scripts import gpu_summary

ROOT = pathlib.Path(__file__).parents[2]
TIMES = """\
50000 Gaussians, 512 px, 3 channels, batch 8: 671264 pairs, list for 3276800
blend_vjp                480.0 us by stream     400.0 us by graph (1 nodes), a frame 50.0 us
forward                  300.0 us by stream     280.0 us by graph (28 nodes), a frame 35.0 us
forward + backward       900.0 us by stream     880.0 us by graph (33 nodes), a frame 110.0 us
"""


@pytest.fixture
def work(tmp_path):
    """What both parts leave, in few lines."""
    (tmp_path / "run").mkdir()
    for part in (1, 2):
        logs = tmp_path / f"logs{part}"
        logs.mkdir()
        (logs / "verdicts").write_text("parity passed in 3 s: 7 files ok\n")
        (logs / "times_8.log").write_text(TIMES)
    steps = {"cases": {"motion": {"total_ms": {"median": 2.25}}}}
    (tmp_path / "bench_step.json").write_text(json.dumps(steps))
    scene = {"name": "ours (cuda)", "gaussians": 50000, "size": 512, "footprint": "small"}
    rows = [scene | {"batch": 8, "forward_ms": {"median": 0.4}}]
    (tmp_path / "bench_rasterizer.json").write_text(json.dumps({"rows": rows}))
    (tmp_path / "cpu_metrics.jsonl").write_text('{"step": 10, "stage": "static", "loss": 0.5}\n')
    return tmp_path


def summarise(part, work, out, capsys):
    out.mkdir(exist_ok=True)
    code = gpu_summary.main([str(part), str(work), str(work), str(out)])
    return code, capsys.readouterr().out


def test_figures_stand_beside_their_goals(work, tmp_path, capsys):
    code, told = summarise(1, work, tmp_path / "out", capsys)
    goal = ["goal", "40:", "met"]
    rows = {line[:48].strip(): line[48:].split() for line in told.splitlines() if "goal" in line}
    assert rows["driver, batch 8: forward (28 nodes)"] == ["35", "us", "a", "frame", *goal]
    assert rows["driver, batch 8: forward + backward (33 nodes)"][-1] == "MISSED"
    assert rows["motion step"] == ["2.25", "ms", "goal", "2.5:", "met"]
    assert code == 0 and "parity passed" in told


@pytest.mark.parametrize(("loss", "code"), [(0.51, 0), (0.6, 1), (float("nan"), 1)])
def test_a_loss_beside_the_cpus_decides(work, tmp_path, capsys, loss, code):
    row = json.dumps({"step": 10, "stage": "static", "loss": loss, "steps_per_second": 9})
    (work / "run/metrics.jsonl").write_text(row + "\n")
    found, told = summarise(2, work, tmp_path / "out", capsys)
    assert found == code and ("MISSED" in told) == bool(code)
    assert "ours (cuda), 50000x512 small, batch 8: forward" in told
    assert " 50 us a frame" in told


def test_no_losses_at_all_are_not_taken_for_equal_ones(work, tmp_path, capsys):
    code, told = summarise(2, work, tmp_path / "out", capsys)
    assert code == 1 and "no loss to compare" in told


def test_few_small_files_come_back(work, tmp_path, capsys):
    (work / "logs2/long.log").write_bytes(b"x" * 10**6)
    (work / "run/metrics.jsonl").write_text('{"step": 10, "stage": "static", "loss": 0.5}\n')
    out = tmp_path / "out"
    for part in (1, 2):
        summarise(part, work, out, capsys)
    files = list(out.iterdir())
    assert len(files) <= 8 and sum(f.stat().st_size for f in files) < 10**6


@pytest.mark.parametrize("part", ["1", "2"])
def test_without_time_and_a_device_each_check_says_so(tmp_path, part):
    """Nothing runs, and the summary is still the last that is said."""
    environment = {
        **os.environ,
        "SLOWER": "0",
        "WORK": str(tmp_path / "work"),
        "OUT": str(tmp_path / "out"),
        "PACK": str(tmp_path),
        "PATH": "/usr/bin:/bin",
        "PYTHON": sys.executable,
    }
    (tmp_path / "driver").touch(mode=0o755)
    done = subprocess.run(
        ["bash", "scripts/gpu_check.sh", part],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    summary = done.stdout.partition(f"==== summary of part {part}\n")[2]
    assert "install LEFT OUT: the time is up" in summary
    if part == "1":
        assert "times_8 skipped: no GPU" in summary and "tests LEFT OUT" in summary
    else:
        assert "real_clip skipped" in summary and "train LEFT OUT" in summary
