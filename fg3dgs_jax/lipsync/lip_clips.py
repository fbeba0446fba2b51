"""What a lip prior learns from: of each video, or processed folder, what is heard and how lips go.

Nothing else of a video is needed: no labels, no head pose, no background.
"""

import csv
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fg3dgs_jax.clip import av_offset, format, lips, over_time
from fg3dgs_jax.experts.audio import lip_prior
from fg3dgs_jax.experts.face import face_landmarker
from fg3dgs_jax.lipsync import face_tracks
from fg3dgs_jax.media import loudness, video
from fg3dgs_jax.media.whole_files import whole
from fg3dgs_jax.system import arrays

MIN_FRAMES = 75  # of a clip that is learnt from
MIN_FACES = 0.9  # share of frames that show a face


class LipClip(NamedTuple):
    """One clip of one speaker."""

    name: str
    speaker: str
    heard: np.ndarray  # float32 [T, D], of `lip_prior.hear`
    points: np.ndarray  # float32 [T, 478, 3], see `lips.in_head_frame`
    late: float | None  # s by which the sound is certainly late by its own spectrum, else None
    samples: np.ndarray  # int16 [n], levelled


def read_clip(
    path: os.PathLike | str, speaker: str, encoder: dict, cache: pathlib.Path | None = None
) -> LipClip:
    """Reads a video with sound, or a processed folder.

    Args:
      path: of the video or folder.
      speaker: who speaks.
      encoder: Whisper's params.
      cache: a folder that keeps what was read, so that the next call is quick.

    Raises:
      ValueError: there is no sound, or hardly a face. One line.
    """
    path = pathlib.Path(path)
    name = path.resolve().stem
    kept = None if cache is None else cache / f"{name}_{_stamp(path)}.npz"
    if kept is not None and arrays.is_whole(kept):
        with np.load(kept) as file:
            fields = {key: file[key] for key in file.files}
        late = float(fields.pop("late"))
        return LipClip(name, speaker, late=None if np.isnan(late) else late, **fields)
    track, samples = _track(path, cache)
    if track.valid.mean() < MIN_FACES or len(track.valid) < MIN_FRAMES:
        raise ValueError(
            f"{path} shows a face in {track.valid.sum()} of {len(track.valid)} frames; expected "
            f"{MIN_FRAMES} or more, and a face in {MIN_FACES:.0%} of them"
        )
    samples = loudness.apply_gain(samples, loudness.gain_db(samples))
    late = av_offset.estimate(track.pixels, track.valid, samples)
    points = lips.in_head_frame(track.pixels, track.depth, track.rotation)
    clip = LipClip(
        name=name,
        speaker=speaker,
        heard=lip_prior.hear(encoder, samples, len(points)),
        points=over_time.bridge(points, track.valid),
        late=late.seconds if late.certain else None,
        samples=samples,
    )
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        fields = {key: getattr(clip, key) for key in ("heard", "points", "samples")}
        with whole(kept) as part, open(part, "wb") as file:
            np.savez(file, late=np.nan if clip.late is None else clip.late, **fields)
    return clip


def speakers_of(
    paths: Sequence[os.PathLike | str], table: os.PathLike | str | None
) -> Mapping[str, str]:
    """Who speaks in each file: {path: speaker}.

    Args:
      paths: of the clips.
      table: a tab-separated file with the columns `file` and `speaker`. Without it, and for files
        that it lacks, every clip has a speaker of its own.

    Raises:
      ValueError: the table lacks a column.
    """
    known: dict[str, str] = {}
    if table is not None:
        with open(table, newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        if not rows or not {"file", "speaker"} <= set(rows[0]):
            raise ValueError(
                f"{table} has the columns {list(rows[0]) if rows else []}; expected `file` and "
                "`speaker`, separated by tabs"
            )
        known = {row["file"]: row["speaker"] for row in rows}
    return {str(p): known.get(pathlib.Path(p).name, pathlib.Path(p).resolve().stem) for p in paths}


def _track(path, cache):
    """Landmarks and samples of a video or processed folder."""
    if (path / "meta.json").is_file():
        if not (path / "faces.npz").is_file():
            raise ValueError(f"{path} has no faces.npz; give the video that it was made from")
        track = face_landmarker.load_track(path / "faces.npz")
        left_out = json.loads((path / "meta.json").read_text()).get("left_out", ())
        own = format.longest_run(np.flatnonzero(format.own_frames(len(track.valid), left_out)))
        rows = {k: v[own] for k, v in track._asdict().items() if k != "names"}
        samples = video.read_wav(path / "audio.wav").reshape(len(track.valid), -1)
        return track._replace(**rows), samples[own].ravel()
    footage = video.read_video(path, min_frames=MIN_FRAMES)
    return face_tracks.detect(footage, cache), footage.samples


def _stamp(path):
    """Tells one state of a file, or of a folder's landmarks, from another."""
    state = (path / "faces.npz" if path.is_dir() else path).stat()
    return f"{state.st_size:x}{state.st_mtime_ns:x}"
