"""A trained avatar in a folder: the resolved config and the parameters, one array a leaf."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jax.typing import ArrayLike

from fg3dgs_jax.avatar.draw import Avatar, Region
from fg3dgs_jax.avatar.workdir import AVATAR_FILE, CONFIG_FILE, read_json
from fg3dgs_jax.config.loading import from_dict
from fg3dgs_jax.media.whole_files import whole
from fg3dgs_jax.system import arrays
from fg3dgs_jax.types import Gaussians


class AvatarError(ValueError):
    """A workdir without a usable avatar."""


def save(
    workdir: os.PathLike[str] | str, regions: dict[str, Region], alive: Mapping[str, ArrayLike]
) -> None:
    """Writes the avatar of a workdir, whole or not at all.

    Args:
      workdir: folder of a training run.
      regions: what is learnt of each region.
      alive: bool [N] of each region; the Gaussians of other slots are left out.
    """
    fields = {}
    for name, region in regions.items():
        keep = np.asarray(alive[name])
        for field in Gaussians.__dataclass_fields__:
            fields[f"{name}/gaussians/{field}"] = np.asarray(getattr(region.gaussians, field))[keep]
        for path, value in sorted(traverse_util.flatten_dict(region.motion).items()):
            fields["/".join((name, "motion", *path))] = np.asarray(value)
    with whole(pathlib.Path(workdir) / AVATAR_FILE) as part:
        np.savez(part, **fields)


def load(workdir: os.PathLike[str] | str) -> Avatar:
    """Returns the avatar of a workdir, ready to draw and to speak.

    Args:
      workdir: folder of a training run, as given to `train`.

    Raises:
      AvatarError: there is no such folder, training has not saved an avatar in it yet, or its files
        are damaged.
    """
    workdir = pathlib.Path(workdir)
    missing = [name for name in (AVATAR_FILE, CONFIG_FILE) if not (workdir / name).exists()]
    again = f"python -m fg3dgs_jax.train --config configs/NAME.py --workdir {workdir}"
    if missing:
        state = f"holds no trained avatar yet (no {' and no '.join(missing)})"
        raise AvatarError(
            f"{workdir} {state if workdir.is_dir() else 'does not exist'}; train one: {again}"
        )
    values = read_json(workdir / CONFIG_FILE)
    if values is None:
        raise _damaged(workdir / CONFIG_FILE, "no JSON object", again)
    try:
        config = from_dict(values)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(workdir / CONFIG_FILE, error, again) from None
    try:
        values = arrays.read_npz(workdir / AVATAR_FILE, "")
        # Not jnp.asarray of each, which compiles a program for every shape.
        tree: Any = traverse_util.unflatten_dict(jax.device_put(values), sep="/")
        regions, alive = {}, {}
        for name in config.regions:
            gaussians = Gaussians(**tree[name]["gaussians"])
            regions[name] = Region(gaussians, tree[name].get("motion", {}))
            alive[name] = jax.device_put(np.ones(gaussians.means.shape[0], bool))
    except arrays.Damaged as error:
        raise AvatarError(f"{error}{_way_out(again)}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(workdir / AVATAR_FILE, error, again) from None
    return Avatar(config, regions, alive)


def _damaged(path: pathlib.Path, reason: object, again: str) -> AvatarError:
    text = " ".join(str(reason).split()) or type(reason).__name__
    return AvatarError(f"{path} is damaged ({text}); {_way_out(again)}")


def _way_out(again: str) -> str:
    return f"write it anew from the newest checkpoint, with the config of the run: {again}"
