"""Preprocessing as functions: what the program `preprocess` calls, and a notebook may."""

import os
import pathlib

from fg3dgs_jax.preprocessing import from_folder, from_video, resume
from fg3dgs_jax.preprocessing.check import look, verdicts
from fg3dgs_jax.preprocessing.settings import AUTO, PreprocessSettings, SettingError, consent_of
from fg3dgs_jax.weights import store


def preprocess(
    video: os.PathLike | str,
    out: os.PathLike | str,
    *,
    consent: str,
    settings: PreprocessSettings | None = None,
) -> pathlib.Path:
    """Makes a processed folder of a video with sound, and returns the folder's path.

    The folder holds frames (25 a second), sound (16 kHz), labels, torso, cameras in metres,
    landmarks, expression channels and audio features. `fg3dgs_jax.clip.format` lists its files.
    Read its `report.html` before you train. Interrupted work goes on where it stopped: a step whose
    files are whole, for the same video and settings, is not done again.

        folder = preprocess("me.mp4", "data/me", consent="self")

    Args:
      video: file of any frame rate and size, with one person who speaks, seen from the front.
      out: folder to make, or to complete.
      consent: ground on which the person's likeness is used: self (you are the person), written
        (the person agreed in writing), licensed (the video's licence allows it) or research.
      settings: what to do otherwise than by default, e.g. `PreprocessSettings(max_seconds=60)`.

    Returns:
      The path of the folder.

    Raises:
      ValueError: a video, setting, package or weights that cannot be used; one line.
      OSError: nothing can be written, or the disk is full; one line.
    """
    settings = settings or PreprocessSettings()
    job = from_video.open_job(video, out, consent_of(consent), settings)
    resume.run(from_video.STEPS, job)
    return job.folder.path


def import_folder(
    source: os.PathLike | str,
    out: os.PathLike | str,
    *,
    consent: str,
    settings: PreprocessSettings | None = None,
) -> pathlib.Path:
    """Makes a processed folder of one in the layout of AD-NeRF, ER-NeRF or TalkingGaussian.

    Args:
      source: that folder. It is only read.
      out: folder to make, or to complete.
      consent: as for `preprocess`.
      settings: as for `preprocess`, without those of videos only.

    Returns:
      The path of the folder.

    Raises:
      ValueError: files that are missing, all of them named, or of no use; one line.
      OSError: nothing can be written, or the disk is full; one line.
    """
    settings = settings or PreprocessSettings()
    if names := settings.of_videos_only():
        raise SettingError(f"{', '.join(names)} is for videos only; leave it out for a folder")
    job = from_folder.open_job(source, out, consent_of(consent), settings)
    resume.run(from_folder.STEPS, job)
    for defect in job.defects:
        print(f"put right: {defect}")
    return job.folder.path


def check_video(video: os.PathLike | str, settings: PreprocessSettings | None = None) -> str:
    """Judges a video by a sample of it, and returns the table of verdicts; nothing is written.

    Raises:
      ValueError: a video, package or weights that cannot be used; one line.
    """
    settings = settings or PreprocessSettings()
    landmarker = store.require("face_landmarker")
    source = from_video.open_video(video, settings)
    sample = look.take(source, landmarker)
    framed = look.frame_head(source, sample, settings.size)
    return verdicts.table(look.judge(source, sample, framed, settings.av_offset == AUTO))
