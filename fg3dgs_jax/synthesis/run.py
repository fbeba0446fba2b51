"""Makes a trained avatar speak any sound, as a video."""

import os
import pathlib
import time
from typing import NamedTuple

import numpy as np

from fg3dgs_jax.avatar import store
from fg3dgs_jax.avatar.subject import open_subject
from fg3dgs_jax.media import video, video_writer
from fg3dgs_jax.media.progress import progress
from fg3dgs_jax.synthesis.meter import Meter


class Talk(NamedTuple):
    """What `synthesize` made."""

    path: pathlib.Path  # the video
    num_frames: int  # 25 a second
    seconds: float  # that drawing and encoding took
    verdict: str | None  # one line on how well the mouth follows the sound, where that was checked
    notes: tuple[str, ...] = ()  # lines on what is odd about the sound


def synthesize(
    workdir: os.PathLike[str] | str,
    audio: video.SoundFile | os.PathLike[str] | str,
    out: os.PathLike[str] | str,
    *,
    split: str = "train",
    data: os.PathLike[str] | str | None = None,
    crf: int = 18,
    check: bool = False,
) -> Talk:
    """Writes a video in which a trained avatar speaks a sound, 25 frames a second.

    Head poses, torso, background, blinks and gaze come from the training clip, played forwards and
    backwards. The mouth follows the sound.

    Args:
      workdir: folder of a training run.
      audio: any audio or video file, of any length; a `SoundFile` chooses one of its tracks.
      out: the file to write, whole or not at all; its folder is made where it is missing. .mp4,
        .mov and .mkv hold H.264 and AAC, .webm holds VP9 and Opus.
      split: the frames of the clip that lend the poses: train, test or all.
      data: the processed folder, or packed file, where it has moved since training.
      crf: quality of x264, 0 (lossless) to 51.
      check: also measures how well the mouth follows the sound.

    Raises:
      ValueError: there is no trained avatar, clip, sound, or weights of the audio features, or
        `out` is a name of no kind of video.
    """
    out = pathlib.Path(out)
    if out.is_dir():
        raise ValueError(
            f"--out {out} is a folder; expected the name of an mp4 file, or of a webm file"
        )
    if not 0 <= crf <= 51:
        raise ValueError(f"--crf is {crf}; expected 0 (lossless) to 51")
    video_writer.kind_of(out)
    source = audio if isinstance(audio, video.SoundFile) else video.SoundFile(audio)
    heard = video.listen(*source)
    samples = heard.samples
    subject = open_subject(store.load(workdir), data)
    speech = subject.speak(samples, split, source.path)
    meter = Meter(subject.clip, speech.poses) if check else None
    frames = meter.watch(speech.frames) if meter else speech.frames
    start = time.perf_counter()
    bar = progress(frames, desc="synthesize", total=speech.num_frames, unit="frame")
    video.write_video(out, bar, samples, crf=crf)
    verdict = meter.verdict(samples) if meter else None
    seconds = time.perf_counter() - start
    return Talk(out, speech.num_frames, seconds, verdict, tuple(_notes(source, heard)))


def _notes(source, heard):
    if heard.inverted:
        yield f"{source.path}: its two channels cancel each other; one was turned over"
    if not np.any(heard.samples):
        yield (
            f"{source.path}: sound track {heard.track} is digital silence: the mouth stays shut; "
            "choose another with --audio_track, or another file"
        )
