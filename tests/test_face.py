"""What `import fg3dgs_jax` offers, and the list of programs."""

import inspect
import pathlib
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import fg3dgs_jax as fg
from fg3dgs_jax import __main__ as programs
from fg3dgs_jax.avatar import store
from fg3dgs_jax.evaluation import pretrained
from fg3dgs_jax.media import video, windows
from fg3dgs_jax.synthetic import subject
from tests import fake_avatar

ROOT = pathlib.Path(fg.__file__).parent
# Names that a program has too.
SHARED = ("evaluate", "preprocess", "synthesize", "train")


def _run(code):
    """Standard output of some Python in a fresh process."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_import_alone_does_not_start_jax():
    assert _run("import fg3dgs_jax, sys; dir(fg3dgs_jax); print('jax' in sys.modules)") == "False"


@pytest.mark.parametrize("name", fg.__all__)
def test_every_name_is_listed_explained_and_there(name):
    assert name in dir(fg) and re.search(rf"^    {name}\b", fg.__doc__, re.MULTILINE)
    assert getattr(fg, name).__doc__


@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize("program_first", [True, False])
def test_a_function_keeps_its_name_beside_the_program(name, program_first):
    uses = [f"import fg3dgs_jax.{name}", f"print(fg.{name}.__name__)"]
    code = "\n".join(["import fg3dgs_jax as fg", *(uses if program_first else uses[::-1])])
    code += f"\nprint(callable(fg.{name}), callable(sys.modules['fg3dgs_jax.{name}'].main))"
    code += f"\nfrom fg3dgs_jax import {name}\nprint({name} is fg.{name})"
    last = _run("import sys\n" + code).splitlines()[-2:]
    assert last == ["True True", "True"]


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'evaluat'"):
        _ = fg.evaluat


@pytest.mark.parametrize(
    "name", [n for n in fg.__all__ if n not in ("Avatar", "config", "rasterizer")]
)
def test_functions_annotate_all_that_they_take_and_return(name):
    signature = inspect.signature(getattr(fg, name))
    assert signature.return_annotation is not signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not parameter.empty, parameter


def test_every_program_is_listed(capsys):
    files = {p.stem for p in ROOT.glob("*.py") if "def main(" in p.read_text()} - {"__main__"}
    # `experts` is an alias of `weights`.
    rooms = {p.parent.name for p in ROOT.glob("*/__main__.py")} - {"experts"}
    assert set(programs.PROGRAMS) == files | rooms
    assert programs.main([]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {name} " in printed for name in programs.PROGRAMS)
    with pytest.raises(SystemExit) as stop:
        programs.main(["trian"])
    assert stop.value.code == 2


@pytest.fixture
def painted(tmp_path, monkeypatch):
    """The painted avatar in place of whatever a workdir holds; a folder to work in, as a string."""
    data = fake_avatar.make_folder(tmp_path / "data", seconds=4)
    avatar = fake_avatar.Avatar(data)
    monkeypatch.setattr(store, "load", lambda _: avatar)
    monkeypatch.setattr(pretrained.store, "find", lambda _: None)
    video.write_wav(tmp_path / "new.wav", fake_avatar.speech(1.5, seed=3))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "avatar.npz").write_bytes(b"leaves")
    return avatar, str(tmp_path)


def test_an_avatar_speaks(painted):
    avatar, folder = painted
    frames = list(fg.Avatar.speak(avatar, f"{folder}/new.wav"))
    assert len(frames) == 38 and {f.shape for f in frames} == {(64, 64, 3)}
    assert frames[0].dtype == np.uint8
    moved = list(fg.Avatar.speak(avatar, f"{folder}/new.wav", split="test", data=f"{folder}/data"))
    assert np.array_equal(moved, frames)  # the painted face has one pose


def test_paths_are_strings(painted):
    _, folder = painted
    talk = fg.synthesize(f"{folder}/run", f"{folder}/new.wav", f"{folder}/talk.mp4")
    assert talk.num_frames == 38 and talk.path.is_file() and talk.verdict is None
    metrics = fg.evaluate(f"{folder}/run", out=f"{folder}/eval", data=f"{folder}/data")
    assert metrics["frames"] == 10 and pathlib.Path(folder, "eval", "report.html").is_file()
    assert fg.load_clip(f"{folder}/data").num_frames == 100
    with pytest.raises(ValueError, match="is a folder; expected the name of an mp4 file"):
        fg.synthesize(f"{folder}/run", f"{folder}/new.wav", folder)
    with pytest.raises(ValueError, match="--crf is 52; expected 0"):
        fg.synthesize(f"{folder}/run", f"{folder}/new.wav", f"{folder}/talk.mp4", crf=52)


def lines_of_the_docstring():
    """The ten lines that train, draw and speak."""
    found = re.search(r"    import fg3dgs_jax as fg\n.*?(?=\nNames:)", fg.__doc__, re.DOTALL)[0]
    return textwrap.dedent(found).strip()


def test_the_readme_has_the_same_lines():
    readme = ROOT.parent / "README.md"
    if not readme.is_file():
        pytest.skip("the README is not in this installation")
    blocks = re.findall(r"```python\n(.*?)```", readme.read_text(), re.DOTALL)
    assert lines_of_the_docstring() in [block.strip() for block in blocks]


@pytest.mark.slow
def test_the_lines_of_the_docstring_train_draw_and_speak(tmp_path, monkeypatch, capsys):
    """On the embedded subject, by the quickstart's tiny config; it needs no video."""

    def make(source, out, *, consent):
        assert (source, consent) == ("talk.mp4", "self")
        features = {"mel": windows.mel_windows}
        subject.make_clip(out, seconds=6.0, size=96, features=features)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fg, "preprocess", make)
    samples, _ = subject.synthesize_speech(1, 1.0)
    video.write_wav("new.wav", samples)
    lines = lines_of_the_docstring()
    tiny = f"{ROOT.parent}/configs/quickstart.py:tiny"
    assert lines.count('"tuned,small"') == 1
    names = {}
    exec(lines.replace("tuned,small", tiny), names)
    psnr = float(re.search(r"^PSNR (.*)$", capsys.readouterr().out, re.MULTILINE)[1])
    assert psnr > 18
    assert len(names["frames"]) == 25 and names["frames"][0].shape == (96, 96, 3)
    assert video.read_video("talking.mp4").num_frames == 25
