"""A module imports only from a lower level, or inside its own package."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1] / "fg3dgs_jax"
LEVELS = {
    **dict.fromkeys(
        ("types", "geometry", "native", "mel", "user_cache"), 1
    ),  # types is below, see LOWEST
    **dict.fromkeys(("data", "experts", "models", "rasterizer"), 2),  # never sideways
    **dict.fromkeys(("audio_features", "avatar", "face_parsers", "sync_experts"), 3),
    **dict.fromkeys(("training", "evaluation", "intake", "preprocessing"), 4),
    # Orders of steps, as the programs are, that one of them calls.
    **dict.fromkeys(("from_video", "importing"), 4.5),
}  # every other module is a program: 5
LOWEST = {"types": 0}
TRAINING = dict.fromkeys(("ssim_ffi", "losses", "density", "optim", "parallel", "checkpoint"), 0)
TRAINING |= {"stages": 1, "step": 2}  # every other module of training/ is above
# A __main__ is a program, whatever package it introduces: it may import all of them.
MODULES = sorted(p.relative_to(ROOT) for p in ROOT.rglob("*.py") if p.stem != "__main__")


def _level(part):
    return LOWEST.get(part, LEVELS.get(part, 5))


def _imports(module):
    """Dotted names below fg3dgs_jax that a module imports anywhere, as lists of parts."""
    for node in ast.walk(ast.parse((ROOT / module).read_text())):
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{module}: relative import"
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            names = [alias.name for alias in getattr(node, "names", []) if hasattr(alias, "name")]
        yield from (n.split(".")[1:] for n in names if n.startswith("fg3dgs_jax."))


@pytest.mark.parametrize("module", [m for m in MODULES if m.parts != ("__init__.py",)], ids=str)
def test_imports_only_from_below(module):
    here = [*module.parts[:-1], module.stem]
    for there in _imports(module):
        found = f"{'.'.join(here)} imports {'.'.join(there)}"
        if here[0] != there[0]:
            assert _level(there[0]) < _level(here[0]), found
        elif here[0] == "training" and len(there) > 1 and here[1] != there[1]:
            assert TRAINING.get(there[1], 3) <= TRAINING.get(here[1], 3), found
