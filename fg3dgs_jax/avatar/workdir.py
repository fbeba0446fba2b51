"""The folder of a run: whose config it has, and whether the run has ended."""

import json
import os
import pathlib
import sys
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from fg3dgs_jax.clip.fingerprint import digest_of
from fg3dgs_jax.config import Config
from fg3dgs_jax.media.whole_files import whole

# The resolved config of a workdir.
CONFIG_FILE = "config.json"
# The parameters as of the newest checkpoint: arrays REGION/gaussians/FIELD and REGION/motion/PATH.
AVATAR_FILE = "avatar.npz"
SUMMARY_FILE = "train.json"
CHECKPOINTS = "checkpoints"
# Settings that may change between a run and its resumption. Where the clip lies may: whether it is
# the same clip is checked by its fingerprint. Audio features that were made anew are told.
FREE = ("log", "data.resident", "data.made_by", "data.path", "data.audio_digest")
# Of the processed folder; (W, D), known once it is open.
WINDOW = "data.audio_window"


class ConfigMismatch(ValueError):
    """A workdir that was made with another config."""


def resolved(config: Config, features: np.ndarray | None = None) -> dict[str, Any]:
    """A config as a workdir keeps it, JSON.

    Args:
      config: of a run.
      features: [T, W, D], the folder's audio features: the avatar understands no others.
    """
    values = json.loads(json.dumps(config.to_dict()))
    if features is not None:
        values["data"]["audio_window"] = list(features.shape[1:])
        values["data"]["audio_digest"] = digest_of(features)
    return values


def claim(
    workdir: str | os.PathLike[str],
    ours: dict[str, Any],
    kept: Callable[[pathlib.Path], dict[str, Any] | None] = lambda _: None,
    writes: bool = True,
) -> None:
    """Writes the resolved config into a workdir, or checks it against the one already there.

    `FREE` settings may differ: how often to report, sample and save changes no result, nor does
    where pictures lie. Of several processes one writes.

    Args:
      workdir: folder of the run.
      ours: the config, see `resolved`.
      kept: workdir -> the same as the newest checkpoint has it; asked if the file is damaged.
      writes: whether this process is the one that does.

    Raises:
      ConfigMismatch: naming the first settings that differ.
      ValueError: the file is damaged, and nothing else has the settings.
    """
    workdir = pathlib.Path(workdir)
    theirs = read_json(workdir / CONFIG_FILE)
    if theirs is None and (workdir / CONFIG_FILE).exists():
        theirs = kept(workdir)
        if theirs is None and (workdir / CHECKPOINTS).is_dir():
            raise ValueError(
                f"{workdir / CONFIG_FILE} is damaged, and no checkpoint has its settings; "
                "expected what train wrote: restore it, or delete it if the config has not changed"
            )
        if writes:
            print(f"{workdir / CONFIG_FILE} was damaged; it is written anew")
    if theirs is not None:
        _compare(workdir, ours, theirs)
    if not writes:
        return
    workdir.mkdir(parents=True, exist_ok=True)
    with whole(workdir / CONFIG_FILE) as part:
        part.write_text(json.dumps(ours, indent=1))


def _compare(workdir: pathlib.Path, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    if "gaussians" not in theirs:
        raise ConfigMismatch(
            f"{workdir} was trained by version 0.1: its avatar can be used, but not trained "
            "further; use another --workdir"
        )
    data, before = ours["data"], theirs["data"]["audio_window"]
    if before != data["audio_window"]:
        raise ConfigMismatch(
            f"{data['path']} has {data['audio_extractor']!r} features in windows "
            f"[W, D] of {data['audio_window']}; {workdir} was trained on {before}: use features "
            "of the same extractor, or another --workdir"
        )
    digest = theirs["data"].get("audio_digest")
    if digest not in (None, data["audio_digest"]):
        print(
            f"the {data['audio_extractor']!r} features of {data['path']} were made anew since "
            f"{workdir} was begun: training goes on with the new ones",
            file=sys.stderr,
        )
    if odd := differences(ours, theirs):
        raise ConfigMismatch(
            f"{workdir} was made with another config (it differs in {', '.join(odd[:4])}); "
            "use another --workdir, or delete this one to start over"
        )


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Paths of the settings that differ and are not `FREE`."""
    return [path for path in _differences(ours, theirs) if not path.startswith(FREE)]


def _differences(a: Any, b: Any, prefix: str = "") -> list[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        keys = sorted(set(a) | set(b))
        missing = object()
        return [
            d
            for k in keys
            for d in _differences(a.get(k, missing), b.get(k, missing), f"{prefix}{k}.")
        ]
    return [] if a == b else [prefix.rstrip(".")]


def finished(workdir: str | os.PathLike[str], config: Config) -> float | None:
    """Seconds trained if every step of `config` is done in the workdir and its avatar is whole.

    None otherwise: there is something to do, or to tell.
    """
    workdir = pathlib.Path(workdir)
    total = sum(stage.steps for _, stage in config.stages.items())
    theirs = read_json(workdir / CONFIG_FILE)
    summary = read_json(workdir / SUMMARY_FILE)
    if theirs is None or summary is None or summary.get("steps") != total:
        return None
    if [path for path in differences(resolved(config), theirs) if path != WINDOW]:
        return None
    if not (workdir / CHECKPOINTS / str(total)).is_dir():
        return None
    if damage(workdir / AVATAR_FILE):
        return None
    seconds = summary.get("train_seconds")
    return float(seconds) if isinstance(seconds, (int, float)) else None


def read_json(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is none, or it is damaged."""
    try:
        values = json.loads(pathlib.Path(path).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def damage(path: str | os.PathLike[str]) -> str | None:
    """What is wrong with a zip or npz file, all of which is read; None if it is whole."""
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.testzip()
    except (OSError, zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return member and f"{member} has another checksum than it was written with"
