"""Files that `convert` wrote: `NAME.npz` of Flax arrays and a sidecar `NAME.json` that proves it.

The sidecar names the published file, its digests, the version of the converters and the npz's own
sha256, so that a converted file is as good as the published one, which may then be deleted.
"""

import json
import os
import pathlib
from collections.abc import Mapping

from fg3dgs_jax.media.whole_files import whole
from fg3dgs_jax.weights import files, variables
from fg3dgs_jax.weights.registry import WeightFile, WeightsMissing

VERSION = 1  # of the converters' results: after a change of names, old files are refused


def write(
    folder: os.PathLike | str, row: WeightFile, source: os.PathLike | str, arrays: dict
) -> pathlib.Path:
    """Saves `arrays`, nested dicts made of the published file `source`, as `folder`/NAME.npz."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{row.name}.npz"
    sidecar(path).unlink(missing_ok=True)  # never one beside another's arrays
    variables.save(path, arrays)
    entries = {
        "name": row.name,
        "source": pathlib.Path(source).name,
        "source_sha256": files.digest(source),
        "source_sha1": files.digest(source, "sha1"),
        "converter": VERSION,
        "sha256": files.digest(path),
    }
    with whole(sidecar(path)) as part:
        part.write_text(json.dumps(entries, indent=2) + "\n")
    return path


def sidecar(path: os.PathLike | str) -> pathlib.Path:
    """Where the proof of a converted file stands: NAME.json beside NAME.npz."""
    return pathlib.Path(path).with_suffix(".json")


def is_row(row: WeightFile, entries: Mapping[str, str]) -> bool:
    """Whether `entries` (source_sha256, source_sha1) are of a file that the row means."""
    sha256, sha1 = entries.get("source_sha256", ""), entries.get("source_sha1", "")
    if not row.has_digest or (row.sha1 and sha1 == row.sha1) or sha256 in row.also_sha256:
        return True
    return bool(row.sha256) and sha256.startswith(row.sha256)


def verify(row: WeightFile, path: os.PathLike | str) -> None:
    """Raises WeightsMissing, with the reason, unless `path` is as `write` left it for `row`."""
    try:
        entries = json.loads(sidecar(path).read_text())
        checked = {key: entries.get(key) for key in ("name", "converter", "sha256")}
    except OSError:
        raise _refused(path, f"{sidecar(path).name} is missing beside it") from None
    except (ValueError, AttributeError):
        raise _refused(path, f"{sidecar(path).name} is no JSON object") from None
    expected = {"name": row.name, "converter": VERSION, "sha256": files.digest(path)}
    if checked != expected:
        wrong = next(key for key in expected if checked[key] != expected[key])
        raise _refused(path, f"{wrong} is {expected[wrong]!r}, its sidecar has {checked[wrong]!r}")
    if not is_row(row, entries):
        raise _refused(path, f"it was made of another file than the registered {row.filename}")


def _refused(path, why):
    return WeightsMissing(
        f"{path} cannot be used ({why}): make it again with `python -m fg3dgs_jax.weights convert`"
    )
