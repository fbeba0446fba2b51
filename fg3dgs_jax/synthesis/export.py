"""Writes an avatar's Gaussians for viewers of 3DGS: at rest, and frame by frame as it speaks."""

import os
import pathlib

import jax.numpy as jnp
import numpy as np

from fg3dgs_jax.avatar import play, ply, store
from fg3dgs_jax.avatar.draw import BACK_TO_FRONT, Avatar
from fg3dgs_jax.avatar.subject import open_subject
from fg3dgs_jax.media import video, windows
from fg3dgs_jax.media.progress import progress
from fg3dgs_jax.models.gaussians import Drawable


def export(
    workdir: os.PathLike[str] | str,
    out: os.PathLike[str] | str,
    *,
    audio: video.SoundFile | os.PathLike[str] | str | None = None,
    data: os.PathLike[str] | str | None = None,
    every: int = 1,
) -> list[pathlib.Path]:
    """Writes .ply files of a trained avatar.

    `face.ply`, `eyes.ply` and `mouth.ply` are the regions at rest, `avatar.ply` all of them. With
    a sound, `frames/000000.ply` and so on are all of them as the avatar speaks it. A viewer sorts
    all Gaussians by depth, where the avatar lays the face over the mouth over the eyes: seen from
    the front the two differ little.

    Args:
      workdir: folder of a training run.
      out: the folder to write into, made where it is missing.
      audio: any audio or video file.
      data: the processed folder, or packed file, where it has moved since training.
      every: with a sound, only every so many-th frame.

    Returns:
      the files, in the order in which they were written.

    Raises:
      ValueError: there is no trained avatar, clip or sound.
    """
    if every < 1:
        raise ValueError(f"every is {every}; expected 1 or more")
    avatar, out = store.load(workdir), pathlib.Path(out)
    subject = open_subject(avatar, data) if audio is not None else None
    out.mkdir(parents=True, exist_ok=True)
    rest = avatar.at_rest()
    named = {f"{name}.ply": gaussians for name, gaussians in rest.items()}
    written = [_write(out / name, gaussians) for name, gaussians in named.items()]
    written.append(_write(out / "avatar.ply", joined(rest)))
    if subject is None or audio is None:
        return written
    source = audio if isinstance(audio, video.SoundFile) else video.SoundFile(audio)
    drive = subject.speak(video.listen(*source).samples, source.path).drive
    frames = out / "frames"
    frames.mkdir(exist_ok=True)
    which = range(0, drive.num_frames, every)
    for i in progress(which, desc="export", total=len(which), unit="frame"):
        written.append(_write(frames / f"{i:06d}.ply", joined(moved(avatar, drive, i))))
    return written


def moved(avatar: Avatar, drive: play.Drive, frame: int) -> dict[str, Drawable]:
    """Returns each region's Gaussians as they are in one frame of a drive."""
    one = drive.take(np.array([frame]))
    audio = windows.slice_windows(one.features, one.sounds)[0].astype(np.float32)
    return avatar.in_motion(audio, one.expression[0])


def joined(regions: dict[str, Drawable]) -> Drawable:
    """Returns the Gaussians of all regions as one set."""
    parts = [regions[name] for name in BACK_TO_FRONT if name in regions]
    return Drawable(*(jnp.concatenate(field) for field in zip(*parts, strict=True)))


def _write(path, gaussians):
    ply.write(path, gaussians)
    return path
