"""A trained avatar in a folder: the resolved config and the parameters, one array a leaf."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax.avatar.draw import Avatar, Region
from fg3dgs_jax.config.loading import from_dict
from fg3dgs_jax.types import Gaussians

CONFIG_FILE = "config.json"  # the resolved config of a workdir


AVATAR_FILE = "avatar.npz"  # the parameters as of the newest checkpoint, one array a leaf


class AvatarError(ValueError):
    """A workdir without a usable avatar."""


def save(workdir, regions, alive):
    """Writes the avatar of a workdir; it appears whole or not at all. Dead slots are left out."""
    arrays = {}
    for name in regions:
        keep = np.asarray(alive[name])
        for field in Gaussians.__dataclass_fields__:
            value = getattr(regions[name].gaussians, field)
            arrays[f"{name}/gaussians/{field}"] = np.asarray(value)[keep]
        for path, value in jax.tree_util.tree_leaves_with_path(regions[name].motion):
            keys = "/".join(str(p.key) for p in path)
            arrays[f"{name}/motion/{keys}"] = np.asarray(value)
    part = pathlib.Path(workdir) / f".{AVATAR_FILE}.part.npz"
    np.savez(part, **arrays)
    part.replace(pathlib.Path(workdir) / AVATAR_FILE)


def load(workdir) -> Avatar:
    """The avatar of a workdir.

    Raises:
      AvatarError: no such workdir, or one that training has not yet saved an avatar in.
    """
    workdir = pathlib.Path(workdir)
    if not (workdir / AVATAR_FILE).exists() or not (workdir / CONFIG_FILE).exists():
        what = "holds no trained avatar yet" if workdir.is_dir() else "does not exist"
        raise AvatarError(
            f"{workdir} {what}; train one: "
            f"python -m fg3dgs_jax.train --config configs/NAME.py --workdir {workdir}"
        )
    config = from_dict(json.loads((workdir / CONFIG_FILE).read_text()))
    regions, alive = {}, {}
    with np.load(workdir / AVATAR_FILE) as arrays:
        for name in config.regions:
            prefix = f"{name}/gaussians/"
            gaussians = Gaussians(
                **{f: jnp.asarray(arrays[prefix + f]) for f in Gaussians.__dataclass_fields__}
            )
            motion = {}
            for key in arrays.files:
                if key.startswith(f"{name}/motion/"):
                    *path, leaf = key.split("/")[2:]
                    inner = functools.reduce(lambda d, k: d.setdefault(k, {}), path, motion)
                    inner[leaf] = jnp.asarray(arrays[key])
            regions[name] = Region(gaussians, motion)
            alive[name] = jnp.ones(gaussians.means.shape[0], bool)
    return Avatar(config, regions, alive)
