"""What a generated video says about itself: that it was made, of whom, from what, by which version.

The statement stands in the file's own metadata and, with the file's digest, in a JSON beside it.
"""

import hashlib
import json
import os
import pathlib
from typing import Any

from fg3dgs_jax.clip.processed import Clip
from fg3dgs_jax.media.container import VideoError, open_media
from fg3dgs_jax.media.whole_files import whole

KEY = "fg3dgs_jax"  # of the statement, in the metadata


def statement(
    version: str, avatar: os.PathLike[str] | str, sound: os.PathLike[str] | str, clip: Clip
) -> dict[str, Any]:
    """Returns what is to be said of a video.

    Args:
      version: of this package.
      avatar: file of the avatar.
      sound: file of the sound that it speaks.
      clip: that it was trained on.
    """
    return {
        KEY: version,
        "generated": True,
        "what": "a synthetic video: an avatar speaks, no person was filmed saying this",
        "avatar_sha256": _digest(avatar),
        "sound_sha256": _digest(sound),
        "consent": clip.meta.get("consent"),
    }


def sidecar(path: os.PathLike[str] | str) -> pathlib.Path:
    """Returns the path of the JSON beside a video."""
    return pathlib.Path(f"{path}.json")


def write_sidecar(path: os.PathLike[str] | str, said: dict[str, Any]) -> None:
    """Writes the statement and the video's digest beside it."""
    with whole(sidecar(path)) as part:
        part.write_text(json.dumps({**said, "video_sha256": _digest(path)}, indent=1) + "\n")


def verify(path: os.PathLike[str] | str) -> list[str]:
    """Returns lines on what a video says about itself, and whether it is as it was written.

    Raises:
      ValueError: no video, or one that says nothing.
    """
    with open_media(path, VideoError) as container:
        tags = {name.lower(): value for name, value in container.metadata.items()}
    try:
        said = json.loads(tags.get("comment", ""))
    except ValueError:
        said = None
    if not isinstance(said, dict) or KEY not in said:
        raise ValueError(
            f"{path} does not say that it was made by fg3dgs_jax; expected a video of synthesize "
            "that no other program has written anew"
        )
    lines = [f"{name}: {json.dumps(value)}" for name, value in said.items()]
    beside = sidecar(path)
    if not beside.is_file():
        return [*lines, f"{beside.name} is not there: the file's own words are all there is"]
    try:
        written = json.loads(beside.read_text())
        as_written = written.pop("video_sha256") == _digest(path) and written == said
    except (ValueError, KeyError, AttributeError):
        as_written = False
    change = "is as it was written" if as_written else "has been changed since it was written"
    return [*lines, f"by {beside.name} the video {change}"]


def _digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
