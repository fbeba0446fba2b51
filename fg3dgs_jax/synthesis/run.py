"""Makes a trained avatar speak any sound, as an mp4."""

import os
import pathlib
import time
from typing import NamedTuple

from fg3dgs_jax.avatar import store
from fg3dgs_jax.avatar.subject import open_subject
from fg3dgs_jax.media import video
from fg3dgs_jax.media.progress import progress
from fg3dgs_jax.synthesis.meter import Meter


class Talk(NamedTuple):
    """What `synthesize` made."""

    path: pathlib.Path  # the mp4
    num_frames: int  # 25 a second
    seconds: float  # that drawing and encoding took
    verdict: str | None  # one line on how well the mouth follows the sound, where that was checked


def synthesize(
    workdir: os.PathLike[str] | str,
    audio: os.PathLike[str] | str,
    out: os.PathLike[str] | str,
    *,
    split: str = "train",
    data: os.PathLike[str] | str | None = None,
    crf: int = 18,
    check: bool = False,
) -> Talk:
    """Writes an mp4 in which a trained avatar speaks a sound: H.264 and AAC, 25 frames a second.

    Head poses, torso, background, blinks and gaze come from the training clip, played forwards and
    backwards. The mouth follows the sound.

    Args:
      workdir: folder of a training run.
      audio: any audio or video file, of any length.
      out: the mp4 to write, whole or not at all; its folder is made where it is missing.
      split: the frames of the clip that lend the poses: train, test or all.
      data: the processed folder, or packed file, where it has moved since training.
      crf: quality of x264, 0 (lossless) to 51.
      check: also measures how well the mouth follows the sound.

    Raises:
      ValueError: there is no trained avatar, clip, sound, or weights of the audio features.
    """
    out = pathlib.Path(out)
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder; expected the name of an mp4 file")
    if not 0 <= crf <= 51:
        raise ValueError(f"--crf is {crf}; expected 0 (lossless) to 51")
    samples = video.read_audio(audio)
    subject = open_subject(store.load(workdir), data)
    speech = subject.speak(samples, split, audio)
    meter = Meter(subject.clip, speech.poses) if check else None
    frames = meter.watch(speech.frames) if meter else speech.frames
    start = time.perf_counter()
    bar = progress(frames, desc="synthesize", total=speech.num_frames, unit="frame")
    video.write_video(out, bar, samples, crf=crf)
    verdict = meter.verdict(samples) if meter else None
    return Talk(out, speech.num_frames, time.perf_counter() - start, verdict)
