"""The newest whole checkpoint wins, whatever has become of the others."""

import gc
import os
import resource
import shutil

import numpy as np
import pytest

from fg3dgs_jax.system import faults
from fg3dgs_jax.training import checkpoint

PROGRESS = checkpoint.Progress("motion", 2.0, {"seed": 0}, "a clip")


def state(number):
    rng = np.random.default_rng(number)
    return {"means": rng.normal(size=(2000, 3)).astype(np.float32), "step": np.int32(number)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A workdir with the checkpoints 1 and 2."""
    path = tmp_path_factory.mktemp("run")
    checkpoints = checkpoint.Checkpoints(path)
    for number in (1, 2):
        checkpoints.save(number, state(number), PROGRESS)
    return path


def largest(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize(
    "spoil",
    (
        lambda folder: flip(largest(folder)),  # TensorStore itself reads this as other values
        lambda folder: os.truncate(largest(folder), 100),
        lambda folder: (folder / "state" / "_METADATA").unlink(),
        lambda folder: (folder / "info" / "metadata").write_bytes(b""),
        lambda folder: (folder / "digests.json").write_text("{"),
        lambda folder: [flip(largest(folder)), (folder / "digests.json").unlink()],
    ),
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(saved, tmp_path, capfd, spoil):
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    newest = checkpoint.Checkpoints(run).latest()
    assert newest.step == 2 and newest.progress == PROGRESS
    np.testing.assert_array_equal(newest.leaves["['means']"], state(2)["means"])
    spoil(run / "checkpoints" / "2")
    capfd.readouterr()
    newest = checkpoint.Checkpoints(run).latest()
    assert newest.step == 1
    np.testing.assert_array_equal(newest.leaves["['means']"], state(1)["means"])
    told = capfd.readouterr().err
    assert told.count("\n") == 1 and "damaged: checkpoint 2 (" in told
    assert "going on from the one before, 1" in told
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["1"]


def test_where_all_are_damaged_nothing_is_begun_anew(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    for name in ("1", "2"):
        flip(largest(tmp_path / "run" / "checkpoints" / name))
    with pytest.raises(checkpoint.CheckpointError, match=r"2 .*, 1 .*; expected one that is whole"):
        checkpoint.Checkpoints(tmp_path / "run").latest()
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 2


# The event loop in which Orbax failed to save may be collected late, with a complaint of its own.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_disk_that_is_full_keeps_the_earlier_ones(saved, tmp_path, capfd):
    run = tmp_path / "run"
    shutil.copytree(saved, run)
    checkpoints = checkpoint.Checkpoints(run)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        with pytest.raises(OSError) as caught:
            checkpoints.save(3, state(3), PROGRESS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        gc.collect()
    assert "/checkpoints/3 would be larger" in faults.describe(caught.value)
    assert capfd.readouterr().err == ""
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["1", "2"]
    assert checkpoint.Checkpoints(run).latest().step == 2
    (run / "checkpoints" / "3.orbax-checkpoint-tmp").mkdir()  # as a kill leaves it
    checkpoints = checkpoint.Checkpoints(run)
    checkpoints.save(3, state(3), PROGRESS)
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["2", "3"]
