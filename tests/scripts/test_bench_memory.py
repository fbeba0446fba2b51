"""The long clip that bench_memory.py makes, and how it reads a process's memory."""

import importlib.util
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from fg3dgs_jax.media import video, video_writer

PATH = pathlib.Path(__file__).parents[2] / "scripts" / "bench_memory.py"
spec = importlib.util.spec_from_file_location("bench_memory", PATH)
bench_memory = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench_memory)


def test_a_short_clip_becomes_a_long_one_without_cuts(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_memory, "HEIGHT", 96)
    monkeypatch.setattr(bench_memory, "WIDTH", 160)
    pictures = [np.full((48, 48, 3), 40 + 4 * i, np.uint8) for i in range(30)]
    sound = (3000 * np.sin(np.arange(30 * 640) / 5)).astype(np.int16)
    video_writer.write_video(tmp_path / "short.mp4", pictures, sound)
    bench_memory.make_clip(tmp_path / "short.mp4", tmp_path / "long.mp4", 0.1)
    clip = video.read_video(tmp_path / "long.mp4")
    assert abs(clip.num_frames - 150) <= 1 and (clip.height, clip.width) == (96, 160)
    level = np.array([frame.mean() for frame in clip.frames()])
    steps = np.abs(np.diff(level))
    assert steps.max() < 9 and np.median(steps) > 3  # up and down and up, never a jump
    assert level.max() > 150 and level.min() < 45
    heard = np.sqrt((clip.samples.reshape(-1, 640).astype(float) ** 2).mean(1))
    assert np.abs(heard[2:-4] - 2121).max() < 400  # 3000 / sqrt(2), to the end


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="/proc is Linux's")
def test_the_memory_of_children_counts(tmp_path):
    child = "b = bytearray(b'1' * 80_000_000); print(flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    command = [sys.executable, "-c", parent]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        own, whole = bench_memory.memory(process.pid)
        process.stdin.close()
    assert 0.08 < own < whole < 0.3
    code, steps = bench_memory.watch([sys.executable, "-c", "0"], tmp_path / "state.json")
    assert code == 0 and list(steps) == ["report"]
    assert "within 2 GB" in bench_memory.table(steps)
