"""A published file -> our npz of Flax arrays, which loads without a pickle and replaces it."""

import os
import pathlib

from fg3dgs_jax.experts import check
from fg3dgs_jax.weights import converted, files, store, variables
from fg3dgs_jax.weights.registry import WeightsMissing


def convert(
    source: os.PathLike | str, name: str | None = None, out: os.PathLike | str | None = None
) -> pathlib.Path:
    """Writes NAME.npz and NAME.json from a published file; where the npz is.

    Args:
      source: the published file.
      name: of the registry; None to tell it by the file's name or digest.
      out: the folder; None for the user's cache.

    Raises:
      ValueError: the file is not the registered one, or there is nothing to convert.
    """
    source = pathlib.Path(source)
    if not source.is_file():
        raise WeightsMissing(f"there is no file {source}; expected a published file")
    if source.suffix == ".npz":
        raise WeightsMissing(f"{source} is an npz already; expected a published file")
    digests = {f"source_{kind}": files.digest(source, kind) for kind in ("sha256", "sha1")}
    row = store.lookup(name) if name else _row_of(source, digests)
    if not converted.is_row(row, digests):
        raise WeightsMissing(
            f"{source} is not the registered {row.filename} (sha256 "
            f"{digests['source_sha256'][:12]}...); a file of your own is used by its path"
        )
    arrays = check.read_for_conversion(row.name, source)
    path = converted.write(out or store.cache_folder(), row, source, arrays)
    back = check.read_for_conversion(row.name, path)
    if variables.digest(variables.flatten(back)) != variables.digest(variables.flatten(arrays)):
        path.unlink()
        raise WeightsMissing(f"{row.name}.npz did not give back what {source} holds; deleted")
    return path


def _row_of(source, digests):
    try:
        return store.lookup(source)
    except WeightsMissing:
        rows = [row for row in store.REGISTRY.values() if row.has_digest]
    for row in rows:
        if converted.is_row(row, digests):
            return row
    raise WeightsMissing(
        f"{source} is none of the registered files, by name or digest; say which with --name"
    )
