"""A trained avatar in a folder: the resolved config and the parameters, one array a leaf."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.typing import ArrayLike

from fg3dgs_jax.avatar.draw import Avatar, Region
from fg3dgs_jax.config.loading import from_dict
from fg3dgs_jax.media.whole_files import whole
from fg3dgs_jax.types import Gaussians

# The resolved config of a workdir.
CONFIG_FILE = "config.json"
# The parameters as of the newest checkpoint: arrays REGION/gaussians/FIELD and REGION/motion/PATH.
AVATAR_FILE = "avatar.npz"


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
    arrays = {}
    for name, region in regions.items():
        keep = np.asarray(alive[name])
        for field in Gaussians.__dataclass_fields__:
            arrays[f"{name}/gaussians/{field}"] = np.asarray(getattr(region.gaussians, field))[keep]
        for path, value in sorted(traverse_util.flatten_dict(region.motion).items()):
            arrays["/".join((name, "motion", *path))] = np.asarray(value)
    with whole(pathlib.Path(workdir) / AVATAR_FILE) as part:
        np.savez(part, **arrays)


def load(workdir: os.PathLike[str] | str) -> Avatar:
    """Returns the avatar of a workdir, ready to draw and to speak.

    Args:
      workdir: folder of a training run, as given to `train`.

    Raises:
      AvatarError: there is no such folder, or training has not saved an avatar in it yet.
    """
    workdir = pathlib.Path(workdir)
    missing = [name for name in (AVATAR_FILE, CONFIG_FILE) if not (workdir / name).exists()]
    if missing:
        state = f"holds no trained avatar yet (no {' and no '.join(missing)})"
        raise AvatarError(
            f"{workdir} {state if workdir.is_dir() else 'does not exist'}; train one: "
            f"python -m fg3dgs_jax.train --config configs/NAME.py --workdir {workdir}"
        )
    config = from_dict(json.loads((workdir / CONFIG_FILE).read_text()))
    with np.load(workdir / AVATAR_FILE) as arrays:
        tree: Any = traverse_util.unflatten_dict(
            {name: jnp.asarray(value) for name, value in arrays.items()}, sep="/"
        )
    regions, alive = {}, {}
    for name in config.regions:
        gaussians = Gaussians(**tree[name]["gaussians"])
        regions[name] = Region(gaussians, tree[name].get("motion", {}))
        alive[name] = jnp.ones(gaussians.means.shape[0], bool)
    return Avatar(config, regions, alive)
