"""A processed folder as one file, `ID.fg3dgs`, to travel with.

The file is a zip: `manifest.json` first, then the pictures as video (`streams`), then every other
file of the folder as it is, compressed without loss. The manifest names each member with its
size and sha256. Left out is what only `preprocess` needs to go on (`LEFT_OUT`).
"""

import hashlib
import json
import lzma
import os
import pathlib
import shutil
import sys
import tempfile
import zipfile
import zlib

import numpy as np
import platformdirs

from fg3dgs_jax.clip import decoded, format, processed, streams
from fg3dgs_jax.clip.memory_map import releasing
from fg3dgs_jax.media import whole_files
from fg3dgs_jax.media.progress import progress

SUFFIX = ".fg3dgs"
VERSION = 2  # of the file's layout
ARRAYS_OF = 1  # a version whose streams are of few whole pictures: they are unpacked as arrays
MANIFEST = "manifest.json"
LEFT_OUT = ("state.json", "faces.npz")
_PICTURES = (*(f"{name}.npy" for name in format.ARRAYS), *streams.STREAMS)
_BLOCK = 1 << 20
KEPT = 4  # unpacked files in the cache; a minute at 512 px takes 70 MB


class PackError(ValueError):
    """A file that is not a whole packed folder, or a folder that cannot be packed; one line."""


def pack(folder: os.PathLike | str, out: os.PathLike | str | None = None) -> pathlib.Path:
    """Writes a processed folder as one file; whole or not at all.

    Args:
      folder: a finished processed folder.
      out: the file; None: beside the folder, under its name.

    Raises:
      ValueError: the folder is unfinished or does not fit together.
    """
    folder = pathlib.Path(folder).absolute()
    if not folder.is_dir():
        raise PackError(f"{folder} is not a folder; expected a processed folder, e.g. data/ID")
    clip = processed.load_clip(folder)
    out = pathlib.Path(out) if out else folder.with_name(folder.name + SUFFIX)
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch_folder = tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.")
    with whole_files.whole(out) as part, scratch_folder as scratch:
        _write(part, clip, folder, pathlib.Path(scratch))
    return out


def _write(out, clip, folder, scratch):
    """The file `out` of the clip in `folder`; its streams stand in `scratch` for a while."""
    source = folder
    if not streams.whole(folder):
        pictures = zip(clip.frames, clip.labels, clip.torso, strict=True)
        bar = progress(pictures, desc="pack", total=clip.num_frames, unit="frame")
        streams.write(scratch, releasing(bar, clip.frames, clip.labels, clip.torso))
        source = scratch
    files = {name: source / name for name in streams.STREAMS} | _others(folder)
    manifest = {
        "format": f"packed processed folder of fg3dgs_jax, version {VERSION}",
        "version": VERSION,
        "schema": format.SCHEMA,
        "name": folder.name,
        "T": clip.num_frames,
        "height": clip.height,
        "width": clip.width,
        "members": [
            {"name": name, "size": path.stat().st_size, "sha256": _digest(path)}
            for name, path in files.items()
        ],
    }
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(MANIFEST, json.dumps(manifest, indent=1))
        for name, path in files.items():
            stored = name in streams.STREAMS or path.suffix == ".png"
            kind = zipfile.ZIP_STORED if stored else zipfile.ZIP_LZMA
            archive.write(path, name, compress_type=kind)


def unpack(file: os.PathLike | str, out: os.PathLike | str) -> pathlib.Path:
    """Makes the processed folder `out` of a packed one; whole or not at all.

    Raises:
      PackError: the file is no packed folder, of another version or damaged, or `out` is there.
      OSError: the disk is too full.
    """
    file, out = pathlib.Path(file), pathlib.Path(out).absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PackError(f"{out} is there already; expected a new folder to unpack {file} into")
    out.parent.mkdir(parents=True, exist_ok=True)
    part = pathlib.Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        _extract(file, part)
        part.chmod(0o755)
        if out.is_dir():
            out.rmdir()
        part.rename(out)
    except (zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, KeyError) as error:
        raise _damaged(file, str(error) or type(error).__name__) from None
    except streams.StreamError as error:
        raise _damaged(file, str(error)) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out


def opened(file: os.PathLike | str) -> pathlib.Path:
    """The folder of a packed one in the user's cache, unpacked there when it is first asked for.

    It stands in `clips` there under the file's digest, so that another file of the same name is
    another folder. The `KEPT` files last used stay; older ones make room when another comes.
    """
    file = pathlib.Path(file)
    name = file.name.removesuffix(SUFFIX)
    place = (
        platformdirs.user_cache_path("fg3dgs", appauthor=False)
        / "clips"
        / _digest(file)[:16]
        / name
    )
    if not (place / "meta.json").exists():
        print(f"unpacking {file} into {place} (once)", file=sys.stderr)
        try:
            unpack(file, place)
        except (PackError, OSError):
            if not (place / "meta.json").exists():  # else another process was faster
                raise
        _forget(place.parent.parent, KEPT, place.parent)
    os.utime(place.parent)
    return place


def _forget(clips, count, but):
    """Removes all folders of `clips` but the `count` that were used last, `but` among them."""
    others = [p for p in clips.iterdir() if p.is_dir() and p != but]
    others.sort(key=lambda p: p.stat().st_mtime)
    for old in others[: max(0, len(others) - count + 1)]:
        for whole in old.glob("*/meta.json"):  # first: what is left is not taken for a clip
            whole.unlink(missing_ok=True)
        shutil.rmtree(old, ignore_errors=True)


def read_manifest(file: os.PathLike | str) -> dict:
    """What a packed folder says of itself.

    Raises:
      PackError: the file is no packed folder, or one of another version.
    """
    file = pathlib.Path(file)
    try:
        with zipfile.ZipFile(file) as archive:
            manifest = json.loads(archive.read(MANIFEST))
    except FileNotFoundError:
        raise PackError(f"{file} does not exist; expected a file made with --pack") from None
    except (zipfile.BadZipFile, KeyError, EOFError, ValueError, zlib.error) as error:
        raise _damaged(file, str(error).strip("'\"")) from None
    versions = (manifest.get("version"), manifest.get("schema"))
    if versions not in ((ARRAYS_OF, format.SCHEMA), (VERSION, format.SCHEMA)):
        raise PackError(
            f"{file} is of version {versions[0]}, schema {versions[1]}; this program reads "
            f"{VERSION}, {format.SCHEMA}: pack the folder again with this version"
        )
    return manifest


def _extract(file, out):
    """Members, then the arrays, then meta.json: a folder without it is unfinished."""
    manifest = read_manifest(file)
    size = manifest["T"], manifest["height"], manifest["width"]
    as_arrays = manifest["version"] == ARRAYS_OF
    needed = sum(member["size"] for member in manifest["members"])
    needed += 8 * int(np.prod(size)) if as_arrays else 0
    free = shutil.disk_usage(out).free
    if free < needed:
        raise OSError(
            f"{out.parent} has {free / 1e9:.1f} GB free; {file} unpacked takes {needed / 1e9:.1f} "
            "GB: make room, or unpack it elsewhere with --unpack FILE --out DIR"
        )
    with zipfile.ZipFile(file) as archive, tempfile.TemporaryDirectory(dir=out) as scratch:
        for member in manifest["members"]:
            where = scratch if as_arrays and member["name"] in streams.STREAMS else out
            _member(archive, member, pathlib.Path(where))
        if as_arrays:
            _arrays(out, pathlib.Path(scratch), size, manifest["labels_sha256"])
    if not (out / "meta.json").exists():
        raise KeyError("it has no meta.json")


def _member(archive, member, out):
    """One file, checked on the way."""
    name = pathlib.PurePosixPath(member["name"])
    if name.is_absolute() or ".." in name.parts or "\\" in member["name"]:
        raise KeyError(f"a member is called {member['name']}")
    path = out / name
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with archive.open(member["name"]) as source, path.open("wb") as target:
        while block := source.read(_BLOCK):
            digest.update(block)
            target.write(block)
    if digest.hexdigest() != member["sha256"]:
        raise KeyError(f"{member['name']} has another sha256 than its manifest says")


def _arrays(out, scratch, size, labels_sha256):
    """frames.npy, labels.npy and torso.npy out of the streams in `scratch`."""
    shapes = dict(zip(format.ARRAYS, ((*size, 3), size, (*size, 4)), strict=True))
    big = {
        name: np.lib.format.open_memmap(out / f"{name}.npy", "w+", np.uint8, shape)
        for name, shape in shapes.items()
    }
    digest = hashlib.sha256()
    pictures = decoded.arrays(scratch)
    if any(pictures[name].shape != array.shape for name, array in big.items()):
        raise KeyError("its pictures are not of the number and size that its manifest says")
    bar = progress(range(size[0]), desc="unpack", unit="frame")
    for i in releasing(bar, *big.values()):
        for name, array in big.items():
            array[i] = pictures[name][i]
        digest.update(big["labels"][i].tobytes())
    if digest.hexdigest() != labels_sha256:
        raise KeyError("its labels are not those that were packed")
    for array in big.values():
        array.flush()


def _others(folder):
    """Name -> path of every file that travels as it is."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    names = {p.relative_to(folder).as_posix(): p for p in paths}
    hidden = {n for n in names if any(part.startswith(".") for part in n.split("/"))}
    return {n: p for n, p in names.items() if n not in {*_PICTURES, *LEFT_OUT, *hidden}}


def _digest(path):
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise PackError(f"{path} does not exist; expected a file made with --pack") from None


def _damaged(file, reason):
    return PackError(
        f"{file} is not a whole packed folder ({reason}); expected a file made with "
        "python -m fg3dgs_jax.preprocess --pack data/ID: copy it again"
    )
