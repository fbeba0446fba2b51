"""Saves and restores a run with Orbax: the newest whole checkpoint wins.

One that was half written, or damaged since, does not count.

A checkpoint holds the state's leaves by path, the stage it belongs to and the seconds trained, so
the capacities need not be known before it is read. It also holds a digest of the leaves, the config
and the fingerprint of the clip.
"""

import contextlib
import hashlib
import json
import logging
import os
import pathlib
import re
import shutil
import sys
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from fg3dgs_jax.avatar import workdir
from fg3dgs_jax.avatar.workdir import ConfigMismatch
from fg3dgs_jax.media.whole_files import whole
from fg3dgs_jax.training import parallel
from fg3dgs_jax.weights import variables

# In a checkpoint's folder: {name: sha256} of its files. TensorStore reads some damage as values.
_DIGESTS = "digests.json"
# Names of what Orbax has begun to write.
_UNFINISHED = "*.orbax-checkpoint-tmp*"
# How TensorStore names what the system answered.
_SYSTEM_ERROR = re.compile(r"os_error_code='(\d+)'")


class CheckpointError(ValueError):
    """Checkpoints of which none can be read; one line."""


class Progress(NamedTuple):
    """Where a run stands, and what it is a run of."""

    stage: str
    seconds: float  # trained
    config: dict[str, Any] | None = None  # resolved; None in checkpoints of 0.1
    clip: str | None = None  # its fingerprint


class Saved(NamedTuple):
    """A checkpoint that was read."""

    step: int  # of all stages
    progress: Progress
    leaves: dict[str, Any]  # {path: array}


class Checkpoints:
    """The checkpoints of one workdir, numbered by the steps done in all stages.

    Of several processes all call every method: Orbax has them wait for each other, and one write.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 2) -> None:
        """Opens the checkpoints of a workdir; what an interrupted save left is removed."""
        self._folder = pathlib.Path(folder).resolve() / workdir.CHECKPOINTS
        self._forget_unfinished()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=True, enable_async_checkpointing=False
        )
        with _quiet():
            self._manager = ocp.CheckpointManager(self._folder, options=options)

    def save(self, total_step: int, state: Any, progress: Progress) -> None:
        """Blocks until the checkpoint is whole.

        Raises:
          OSError: it cannot be written, e.g. for lack of room; the earlier ones are whole.
        """
        leaves = {name: np.asarray(x) for name, x in _named_leaves(state)}
        info = {**progress._asdict(), "sha256": variables.digest(leaves)}
        args = ocp.args.Composite(state=ocp.args.StandardSave(leaves), info=ocp.args.JsonSave(info))
        try:
            with _quiet():
                self._manager.save(total_step, args=args)
                self._manager.wait_until_finished()
        except Exception as error:
            self._forget_unfinished()
            number = _SYSTEM_ERROR.search(str(error))
            if isinstance(error, OSError) or number is None:
                raise
            path = str(self._folder / str(total_step))
            raise OSError(int(number[1]), os.strerror(int(number[1])), path) from error
        if parallel.writes():
            folder = self._folder / str(total_step)
            with whole(folder / _DIGESTS) as part:
                part.write_text(json.dumps(_files(folder), indent=1))

    def latest(self) -> Saved | None:
        """The newest checkpoint that is whole, or None where there is none at all.

        A damaged one is told in one line and removed, and the one before it takes its place.

        Raises:
          CheckpointError: all of them are damaged.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        damaged: dict[int, str] = {}  # {step: reason}
        for step in steps:
            try:
                saved = self._restore(step)
            except Exception as error:  # Orbax, TensorStore and JSON have errors of many kinds
                damaged[step] = _reason(error)
                continue
            if damaged:
                self._tell_and_remove(damaged, step)
            return saved
        if damaged:
            raise CheckpointError(
                f"no checkpoint in {self._folder} can be read: {_listed(damaged)}; expected one "
                "that is whole: restore a copy, or delete the folder to train from the beginning"
            )
        return None

    def _restore(self, step: int) -> Saved:
        folder = self._folder / str(step)
        # A run that was killed just before they were written has none: then the leaves' tells.
        if (folder / _DIGESTS).exists():
            expected = json.loads((folder / _DIGESTS).read_text())
            files = _files(folder)
            if odd := sorted(k for k in expected if files.get(k) != expected[k]):
                raise ValueError(f"{odd[0]} is not as it was written")
        args = ocp.args.Composite(state=ocp.args.StandardRestore(), info=ocp.args.JsonRestore())
        with _quiet():
            restored = self._manager.restore(step, args=args)
        info, leaves = dict(restored["info"]), restored["state"]
        digest = info.pop("sha256", None)
        if digest is not None and digest != variables.digest(leaves):
            raise ValueError("its values are not those that were written")
        return Saved(step, Progress(**info), leaves)

    def _tell_and_remove(self, damaged: dict[int, str], step: int) -> None:
        if parallel.writes():
            print(
                f"{self._folder}: damaged: checkpoint {_listed(damaged)}; going on from the one "
                f"before, {step}",
                file=sys.stderr,
            )
        for number in damaged:
            self._manager.delete(number)

    def _forget_unfinished(self) -> None:
        if parallel.writes():
            for path in self._folder.glob(_UNFINISHED):
                shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _quiet():
    """Without Orbax's own report of an error, which is raised as well."""
    logger = logging.getLogger("absl")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def newest_config(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The config with which the newest whole checkpoint of a workdir was trained, or None."""
    if not (pathlib.Path(folder) / workdir.CHECKPOINTS).is_dir():
        return None
    saved = Checkpoints(folder).latest()
    return saved and saved.progress.config


def _listed(damaged: dict[int, str]) -> str:
    return ", ".join(f"{step} ({reason})" for step, reason in damaged.items())


def _reason(error: Exception) -> str:
    """The beginning of an error's text, which may be long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 100 else f"{text[:97]}..."


def _files(folder: pathlib.Path) -> dict[str, str]:
    """{name: sha256} of the files below a folder."""
    digests = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if not path.name.startswith((".", _DIGESTS)):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            digests[path.relative_to(folder).as_posix()] = digest
    return digests


def _named_leaves(tree):
    pairs = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in pairs]


def fill(template: Any, leaves: dict[str, Any]) -> Any:
    """`template`'s structure with the restored `leaves` by path; capacities may differ.

    Raises:
      ConfigMismatch: the checkpoint was made by another model.
    """
    names = [name for name, _ in _named_leaves(template)]
    if set(names) != set(leaves):
        odd = sorted(set(names) ^ set(leaves))[:3]
        raise ConfigMismatch(
            f"the checkpoint does not fit this model (first differences: {odd}); "
            "use another --workdir"
        )
    return jax.tree.unflatten(jax.tree.structure(template), [leaves[name] for name in names])
