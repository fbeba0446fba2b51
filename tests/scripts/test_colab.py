"""The notebook's cells, one after the other, with the embedded subject and tiny settings."""

import json
import pathlib
import re
import sys
import types

import pytest

from fg3dgs_jax.config import methods
from fg3dgs_jax.weights import store
from tests import painted

NOTEBOOK = pathlib.Path(__file__).parents[2] / "scripts" / "fg3dgs_jax_colab.ipynb"
CELLS = {c["id"]: "".join(c["source"]) for c in json.loads(NOTEBOOK.read_text())["cells"]}


@pytest.fixture
def shown(monkeypatch):
    """What IPython, which is not needed for this, was given to show."""
    things = []

    class Shown:
        def __init__(self, *args, **kwargs):
            things.append(args or tuple(kwargs.values()))

        update = __init__

    parts = {"display": lambda thing, **_: Shown(thing), "Image": Shown, "Video": Shown}
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(**parts))
    monkeypatch.setitem(sys.modules, "google.colab", None)
    return things


def test_the_cells_make_an_avatar_that_speaks(tmp_path, monkeypatch, shown, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(store, "find", lambda _: None)  # networks of metrics take seconds each
    names = {}

    def shrink():
        """One set of Gaussians that do not move: a third of the time to compile."""
        names["config"] = painted.still(names["data"])
        methods.single(names["config"])

    changes = {"settings": lambda: names.update(SECONDS=1.2, SIDE=64), "config": shrink}
    for cell, source in CELLS.items():
        if cell == "install" or cell.endswith("title"):
            continue
        # Commands of the shell stand for themselves.
        source = re.sub(r"^( *)[!%].*", r"\1pass", source, flags=re.MULTILINE)
        exec(compile(source, f"<{cell}>", "exec"), names)
        changes.get(cell, lambda: None)()
    told = capsys.readouterr().out
    assert "trained in" in told and re.search(r"psnr +\d\d\.", told)
    assert names["talk"].num_frames == 30 and (tmp_path / "avatar/talk.mp4").stat().st_size > 1000
    assert any(str(names["talk"].path) in thing for thing in shown)


def test_the_notebook_is_kept_without_what_it_showed():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.parametrize("size", ["quick", "paper"])
@pytest.mark.parametrize("subject", ["embedded", "my video"])
def test_every_choice_names_a_config(size, subject):
    import fg3dgs_jax as fg

    names = {"SIZE": size, "SUBJECT": subject, "fg": fg, "data": "somewhere"}
    exec(CELLS["config"], names)
    assert names["config"].data.path == "somewhere"
