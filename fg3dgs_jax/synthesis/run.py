"""Makes a trained avatar speak any sound, as a video."""

import json
import os
import pathlib
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

import fg3dgs_jax
from fg3dgs_jax.avatar import store
from fg3dgs_jax.avatar.controls import UNCHANGED, Controls
from fg3dgs_jax.avatar.subject import Subject, open_subject
from fg3dgs_jax.avatar.workdir import AVATAR_FILE
from fg3dgs_jax.media import video, video_writer
from fg3dgs_jax.media.progress import progress
from fg3dgs_jax.synthesis import provenance
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
    data: os.PathLike[str] | str | None = None,
    crf: int = 18,
    check: bool = False,
    controls: Controls = UNCHANGED,
) -> Talk:
    """Writes a video in which a trained avatar speaks a sound, 25 frames a second.

    Head poses, torso, background, blinks and gaze come from the training clip, played forwards and
    backwards. The mouth follows the sound, which goes into the video as it came: 48 kHz, mono or
    stereo. The video says that it was generated (`provenance`).

    Args:
      workdir: folder of a training run.
      audio: any audio or video file, of any length; a `SoundFile` chooses one of its tracks.
      out: the file to write, whole or not at all; its folder is made where it is missing. .mp4,
        .mov and .mkv hold H.264 and AAC, .webm holds VP9 and Opus.
      data: the processed folder, or packed file, where it has moved since training.
      crf: quality of x264, 0 (lossless) to 51.
      check: also measures how well the mouth follows the sound.
      controls: what is to be otherwise than in the clip.

    Raises:
      ValueError: there is no trained avatar, clip, sound, or weights of the audio features, `out`
        is a name of no kind of video, or the avatar has not what the controls name.
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
    subject = open_subject(store.load(workdir), data, controls.size)
    speech = subject.speak(samples, source.path, controls)
    meter = Meter(subject.clip, speech.poses) if check else None
    frames = meter.watch(speech.frames) if meter else speech.frames
    start = time.perf_counter()
    bar = progress(frames, desc="synthesize", total=speech.num_frames, unit="frame")
    said = _statement(workdir, source, subject)
    video.write_video(
        out,
        bar,
        video.as_it_came(source),
        sample_rate=video.KEPT_RATE,
        crf=crf,
        comment=json.dumps(said),
    )
    provenance.write_sidecar(out, said)
    verdict = meter.verdict(samples) if meter else None
    seconds = time.perf_counter() - start
    return Talk(out, speech.num_frames, seconds, verdict, tuple(_notes(source, heard)))


def _statement(workdir, source: video.SoundFile, subject: Subject):
    avatar = pathlib.Path(workdir) / AVATAR_FILE
    return provenance.statement(fg3dgs_jax.__version__, avatar, source.path, subject.clip)


def _notes(source: video.SoundFile, heard: video.Heard) -> Iterator[str]:
    if heard.inverted:
        yield (
            f"{source.path}: its two channels cancel each other; the mouth follows one turned over"
        )
    if not np.any(heard.samples):
        yield (
            f"{source.path}: sound track {heard.track} is digital silence: the mouth stays shut; "
            "choose another with --audio_track, or another file"
        )
