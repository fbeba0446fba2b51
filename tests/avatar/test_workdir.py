"""A workdir whose run has ended, and one whose config is damaged."""

import json
import subprocess
import sys

import numpy as np
import pytest

from fg3dgs_jax.avatar import workdir
from fg3dgs_jax.config import Config

FEATURES = np.zeros((7, 16, 80))
STEPS = sum(stage.steps for _, stage in Config().stages.items())


@pytest.fixture
def ended(tmp_path):
    """A workdir as a run leaves it that has done all steps."""
    workdir.claim(tmp_path, workdir.resolved(Config(), FEATURES))
    (tmp_path / "checkpoints" / str(STEPS)).mkdir(parents=True)
    np.savez(tmp_path / "avatar.npz", x=np.arange(1000.0))
    (tmp_path / "train.json").write_text(json.dumps({"train_seconds": 7.5, "steps": STEPS}))
    return tmp_path


def test_a_run_that_has_ended_is_known_without_its_clip_and_networks(ended):
    code = (
        "import sys; from fg3dgs_jax.avatar import workdir; from fg3dgs_jax.config import Config; "
        "print(workdir.finished(sys.argv[1], Config()), 'orbax' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(ended)]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "7.5 False\n"


def cut(path):
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize(
    "change",
    (
        lambda run: cut(run / "avatar.npz"),
        lambda run: cut(run / "config.json"),
        lambda run: cut(run / "train.json"),
        lambda run: (run / "train.json").write_text('{"train_seconds": 1.0, "steps": 5}'),
        lambda run: (run / "checkpoints" / str(STEPS)).rmdir(),
        lambda run: (run / "avatar.npz").unlink(),
    ),
)
def test_a_run_with_something_to_do_or_to_mend_has_not_ended(ended, change):
    assert workdir.finished(ended, Config()) == 7.5
    assert workdir.finished(ended, Config(seed=5)) is None
    change(ended)
    assert workdir.finished(ended, Config()) is None


def test_a_damaged_config_is_written_anew_from_a_checkpoint(ended, capsys):
    ours = workdir.resolved(Config(), FEATURES)
    before = (ended / "config.json").read_text()
    cut(ended / "config.json")
    with pytest.raises(ValueError, match=r"config\.json is damaged, and no checkpoint has its"):
        workdir.claim(ended, ours)
    with pytest.raises(workdir.ConfigMismatch, match="differs in seed"):
        workdir.claim(ended, workdir.resolved(Config(seed=5), FEATURES), lambda _: ours)
    workdir.claim(ended, ours, lambda _: ours)
    assert "was damaged; it is written anew" in capsys.readouterr().out
    assert (ended / "config.json").read_text() == before


def test_a_clip_may_move(ended):
    moved = Config()
    moved.data.path = "elsewhere"
    workdir.claim(ended, workdir.resolved(moved, FEATURES))
    assert json.loads((ended / "config.json").read_text())["data"]["path"] == "elsewhere"
