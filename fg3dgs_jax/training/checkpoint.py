"""Saves and restores a run with Orbax: the newest whole checkpoint wins.

One that was half written does not count.

A checkpoint holds the state's leaves by path, the stage it belongs to and the seconds trained, so
the capacities need not be known before it is read.
"""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from fg3dgs_jax.avatar import store
from fg3dgs_jax.config import Config
from fg3dgs_jax.training import parallel

# Settings that may change between a run and its resumption.
FREE = ("log", "data.resident", "data.made_by")


class ConfigMismatch(ValueError):
    """A workdir that was made with another config."""


class Checkpoints:
    """The checkpoints of one workdir, numbered by the steps done in all stages.

    Of several processes all call every method: Orbax has them wait for each other, and one write.
    """

    def __init__(self, workdir: str | os.PathLike[str], keep: int = 2) -> None:
        folder = pathlib.Path(workdir).resolve() / "checkpoints"
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=True, enable_async_checkpointing=False
        )
        self._manager = ocp.CheckpointManager(folder, options=options)

    def save(self, total_step: int, stage_name: str, state: Any, seconds: float) -> None:
        """Blocks until the checkpoint is whole."""
        leaves = {name: np.asarray(x) for name, x in _named_leaves(state)}
        info = {"stage": stage_name, "seconds": seconds}
        args = ocp.args.Composite(state=ocp.args.StandardSave(leaves), info=ocp.args.JsonSave(info))
        self._manager.save(total_step, args=args)
        self._manager.wait_until_finished()

    def latest(self) -> tuple[int, dict[str, Any], dict[str, Any]] | None:
        """(total step, info, {path: array}) of the newest checkpoint, or None."""
        step = self._manager.latest_step()
        if step is None:
            return None
        args = ocp.args.Composite(state=ocp.args.StandardRestore(), info=ocp.args.JsonRestore())
        found = self._manager.restore(step, args=args)
        return step, found["info"], found["state"]


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


def claim_workdir(
    workdir: str | os.PathLike[str], config: Config, audio_window: Sequence[int]
) -> None:
    """Writes the resolved config into a workdir, or checks it against the one already there.

    `log` may differ (how often to report, sample and save changes no result), and where pictures
    lie. Of several processes one writes.

    Args:
      workdir: folder of the run.
      config: of the run.
      audio_window: (W, D) of the folder's audio features, kept as `data.audio_window`: the avatar
        understands no others.

    Raises:
      ConfigMismatch: naming the first settings that differ.
    """
    workdir = pathlib.Path(workdir)
    path = workdir / store.CONFIG_FILE
    ours = json.loads(json.dumps(config.to_dict()))
    ours["data"]["audio_window"] = list(audio_window)
    if path.exists():
        theirs = json.loads(path.read_text())
        if "gaussians" not in theirs:
            raise ConfigMismatch(
                f"{workdir} was trained by version 0.1: its avatar can be used, but not trained "
                "further; use another --workdir"
            )
        before = theirs["data"]["audio_window"]
        if before != list(audio_window):
            raise ConfigMismatch(
                f"{config.data.path} has {config.data.audio_extractor!r} features in windows "
                f"[W, D] of {list(audio_window)}; {workdir} was trained on {before}: use features "
                "of the same extractor, or another --workdir"
            )
        odd = [k for k in _differences(ours, theirs) if not k.startswith(FREE)]
        if odd:
            raise ConfigMismatch(
                f"{workdir} was made with another config (it differs in {', '.join(odd[:4])}); "
                "use another --workdir, or delete this one to start over"
            )
    if not parallel.writes():
        return
    workdir.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(ours, indent=1))
    part.replace(path)


def _differences(a, b, prefix=""):
    if isinstance(a, dict) and isinstance(b, dict):
        keys = sorted(set(a) | set(b))
        missing = object()
        return [
            d
            for k in keys
            for d in _differences(a.get(k, missing), b.get(k, missing), f"{prefix}{k}.")
        ]
    return [] if a == b else [prefix.rstrip(".")]
