"""The floors of docs/architecture.md: a room imports only from below, never sideways, in Python and
in `#include`.
"""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1] / "fg3dgs_jax"
FLOORS = (
    ("types", "media", "system"),
    ("geometry", "native", "weights"),
    ("rasterizer", "clip", "config", "experts"),
    ("models", "lipsync", "synthetic", "preprocessing"),
    ("avatar",),
    ("training", "evaluation", "synthesis"),
)  # every other module is a program
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# A __main__ is a program, whatever room it introduces: it may import all of them.
MODULES = sorted(p.relative_to(ROOT) for p in ROOT.rglob("*.py") if p.stem != "__main__")
SOURCES = sorted(
    p.relative_to(ROOT / "native")
    for p in (ROOT / "native").rglob("*")
    if p.suffix in (".h", ".cc", ".cu", ".cuh")
)


def _floor(room: str) -> int:
    return FLOOR.get(room, len(FLOORS))


def _imports(module):
    """Dotted names below fg3dgs_jax that a module imports anywhere, as lists of parts."""
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{module}: relative import"
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            names = [alias.name for alias in getattr(node, "names", []) if hasattr(alias, "name")]
        yield from (n.split(".")[1:] for n in names if n.startswith("fg3dgs_jax."))


def _file(parts):
    """The module's path that a dotted name means: the name itself, or what it is taken from."""
    for end in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:end])
        if path.with_suffix(".py").is_file():
            return path.with_suffix(".py").relative_to(ROOT)
        if (path / "__init__.py").is_file():
            return (path / "__init__.py").relative_to(ROOT)
    raise AssertionError(f"there is no module {'.'.join(parts)}")


@pytest.mark.parametrize("module", [m for m in MODULES if m.parts != ("__init__.py",)], ids=str)
def test_imports_only_from_below(module):
    here = [*module.parts[:-1], module.stem]
    for there in _imports(module):
        if here[0] != there[0]:
            found = f"{'.'.join(here)} imports {'.'.join(there)}"
            assert _floor(there[0]) < _floor(here[0]), found


def test_modules_import_in_no_circle():
    arrows = {m: {_file(there) for there in _imports(m)} - {m} for m in MODULES}
    arrows = {m: {t for t in there if t in arrows} for m, there in arrows.items()}
    while free := [m for m, there in arrows.items() if not there]:
        arrows = {m: there.difference(free) for m, there in arrows.items() if m not in free}
    assert not arrows, f"a circle among {sorted(map(str, arrows))}"


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_native_code_includes_only_its_backend_and_the_core(source):
    included = re.findall(r'#include "([^"]+)"', (ROOT / "native" / source).read_text())
    rooms = {name.split("/")[0] for name in included if not name.startswith("xla/")}
    assert rooms <= {"core", source.parts[0]}, f"{source} includes {included}"


def test_no_room_is_crowded():
    for folder in {ROOT, *(p for p in ROOT.rglob("*") if p.is_dir() and p.name != "__pycache__")}:
        files = [p for p in folder.iterdir() if p.suffix in (".py", ".h", ".cc", ".cu", ".cuh")]
        assert len(files) <= 18, f"{folder.relative_to(ROOT)} has {len(files)} files"
