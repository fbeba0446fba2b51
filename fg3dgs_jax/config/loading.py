"""From what a user names to a config: a file with a variant, a variant, a dict of an older run."""

import importlib.util
import os
import pathlib
import re
from typing import Any

from fg3dgs_jax.config import methods
from fg3dgs_jax.config.defaults import Config, Model

PACKAGED = pathlib.Path(methods.__file__)  # its get_config takes a variant, as every config file's


def load(config: "str | os.PathLike[str] | Config") -> Config:
    """The config that is named, or the one that is given.

    Args:
      config: a file with `get_config(variant)` and a variant (`configs/obama.py:tuned,small`), a
        variant of the packaged settings (`tuned,small`), or a Config, which is returned as it is.

    Raises:
      ValueError: no such file or variant.
    """
    if isinstance(config, Config):
        return config
    path, variant = _split(os.fspath(config))
    if not path.is_file():
        raise ValueError(
            f"there is no config file {path}; expected FILE.py[:VARIANT], or a variant such as "
            "tuned,small"
        )
    spec = importlib.util.spec_from_file_location(f"fg3dgs_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file; expected one with get_config(variant)")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant)


def for_flag(text: str) -> str:
    """What `--config` names, as the flag takes it: FILE.py:VARIANT."""
    path, variant = _split(text)
    return f"{path}:{variant}" if variant else str(path)


def _split(text: str) -> tuple[pathlib.Path, str]:
    found = re.match(r"(.*\.py)(?::(.*))?$", text, re.DOTALL)
    if found:
        return pathlib.Path(found[1]), found[2] or ""
    return PACKAGED, text


def from_dict(values: dict[str, Any]) -> Config:
    """The config that a workdir keeps as `config.json`.

    A run of version 0.1 is understood as far as an avatar needs it: what it was trained on, its
    regions and its networks. Its stages are not.

    Raises:
      AttributeError: a setting that this version does not know.
    """
    return Config.from_dict(values) if "gaussians" in values else _of_version_0_1(values)


def _of_version_0_1(values: dict[str, Any]) -> Config:
    data = dict(values["data"])
    data.update(
        max_side=data["max_side"] or None,
        seconds=data["seconds"] or None,
        resident={"True": "device", "False": "host"}.get(data["resident"], "auto"),
    )
    model = {k: dict(v) for k, v in values["model"].items()}
    model["face"].pop("num_outputs", None)
    for region in ("eyes", "mouth"):
        model[region].pop("concat_widths", None)
        model[region]["turns_and_scales"] = model[region].pop("num_outputs", 3) == 10
    config = Config(name=values["name"], seed=values["seed"], moves=values["moves"])
    config.data = type(config.data).from_dict(data)
    config.model = Model.from_dict(model)
    config.regions = tuple(values["layers"])
    config.lips_in = values["lips_in"]
    config.sh_degree = values["sh_degree"]
    return config
