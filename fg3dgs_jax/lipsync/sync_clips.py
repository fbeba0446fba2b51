"""What the lip-sync expert learns from: of each video, or processed folder, mouths and sound.

A video is decoded twice, once for landmarks and once for the mouths that they frame. Nothing else
of it is needed: no labels, no head pose, no background.
"""

import os
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fg3dgs_jax.clip import av_offset, over_time, pack
from fg3dgs_jax.clip.open import open_clip
from fg3dgs_jax.experts.audio import audio_features
from fg3dgs_jax.lipsync import expert, face_tracks
from fg3dgs_jax.lipsync.examples import MARGIN, STORED, SyncClip
from fg3dgs_jax.media import loudness, video
from fg3dgs_jax.media import windows as windows_lib
from fg3dgs_jax.media.clock import SAMPLE_RATE
from fg3dgs_jax.media.whole_files import whole
from fg3dgs_jax.system import arrays

MIN_FRAMES = 28  # of a video
MIN_FACES = 0.9  # share of a video's frames that show a face
_CHUNK = 64  # frames cut at once
_ROUND = 32  # px: windows of pictures are multiples of it, so that few shapes are compiled


class Recorded(NamedTuple):
    """What was read of one clip."""

    name: str
    mouths: np.ndarray  # uint8 [T, 72, 72, 3], see `SyncClip`
    samples: np.ndarray  # int16 [n], 16 kHz, speech at the common level
    late: float  # s by which the sound is certainly late, see `av_offset`, else 0


def read(path: os.PathLike | str, cache: os.PathLike | str | None = None) -> Recorded:
    """Reads a video with sound, or a processed folder, whose sound is taken as it lies there.

    Args:
      path: of the video or folder.
      cache: a folder that keeps what was read of videos, so that the next call is quick.

    Raises:
      ValueError: there is no sound, or hardly a face. One line.
    """
    path = pathlib.Path(path)
    name = path.resolve().stem
    if path.suffix == pack.SUFFIX or not path.is_file():
        clip = open_clip(path)
        own = clip.shot("all")
        part = slice(own[0], own[-1] + 1)
        mouths = cut_mouths(clip.frames[part], clip.landmarks[part])
        samples = video.read_wav(clip.path / "audio.wav").reshape(clip.num_frames, -1)[part]
        return Recorded(name, mouths, samples.ravel(), 0.0)
    kept = None if cache is None else face_tracks.kept_file(path, cache, "mouths")
    if kept is not None and arrays.is_whole(kept):
        with np.load(kept) as file:
            return Recorded(name, file["mouths"], file["samples"], float(file["late"]))
    recorded = _read_video(path, cache)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with whole(kept) as part, open(part, "wb") as file:
            np.savez(file, mouths=recorded.mouths, samples=recorded.samples, late=recorded.late)
    return recorded


def sync_clip(recorded: Recorded, late: float | None = None) -> SyncClip:
    """A clip in step, as the expert's training takes it.

    Args:
      recorded: what was read of the clip.
      late: s by which its sound is late, and is moved back. None: as `recorded` says.
    """
    late = recorded.late if late is None else late
    samples = moved_back(recorded.samples, round(late * SAMPLE_RATE))
    windows = windows_lib.mel_windows(samples, len(recorded.mouths))
    return SyncClip(recorded.name, recorded.mouths, windows)


def moved_back(samples: np.ndarray, count: int) -> np.ndarray:
    """Samples [n] that begin `count` earlier, with silence at the end; negative: later."""
    if count >= 0:
        return np.pad(samples[count:], (0, min(count, len(samples))))
    return np.pad(samples[:count], (min(-count, len(samples)), 0))


def cut_mouths(frames: Iterable[np.ndarray], pixels: np.ndarray) -> np.ndarray:
    """Mouths of all frames, uint8 [T, 72, 72, 3].

    Args:
      frames: uint8 RGB [H, W, 3] each, all of one size.
      pixels: [T, 478, 2] px, their landmarks.
    """
    boxes = expert.mouth_boxes(pixels)
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * MARGIN
    boxes = np.concatenate([middle - half, middle + half], 1)
    window = int(np.ceil(2 * half.max() + 2) // _ROUND + 1) * _ROUND
    mouths = np.zeros((len(boxes), STORED, STORED, 3), np.uint8)
    parts, corners = [], []
    for k, (frame, box) in enumerate(zip(frames, boxes, strict=True)):
        height, width = frame.shape[:2]
        column, row = (
            int(np.clip(np.floor(start) - 1, 0, max(size - window, 0)))
            for start, size in zip(box[:2], (width, height), strict=True)
        )
        parts.append(frame[row : row + window, column : column + window])
        corners.append((column, row, column, row))
        if len(parts) == _CHUNK or k + 1 == len(boxes):
            first, fill = k + 1 - len(parts), _CHUNK - len(parts)
            inside = boxes[first : k + 1] - np.array(corners, np.float32)
            mouths[first : k + 1] = np.rint(
                _cut(
                    np.stack(parts + parts[-1:] * fill),
                    np.pad(inside, ((0, fill), (0, 0)), mode="edge"),
                )
            )[: len(parts)]
            parts, corners = [], []
    return mouths


@jax.jit
def _cut(frames, boxes):
    return expert.cut(frames.astype(jnp.float32), boxes, STORED)


def _read_video(path, cache):
    footage = video.read_video(path, min_frames=MIN_FRAMES)
    track = face_tracks.detect(footage, cache)
    if track.valid.mean() < MIN_FACES:
        raise ValueError(
            f"{path} shows a face in {track.valid.sum()} of {len(track.valid)} frames; expected a "
            f"face in {MIN_FACES:.0%} of them"
        )
    pixels = over_time.bridge(track.pixels, track.valid)
    samples = loudness.apply_gain(footage.samples, loudness.gain_db(footage.samples))
    predicted = audio_features.expected_lips(samples, len(pixels))
    offset = av_offset.estimate(track.pixels, track.valid, samples, predicted)
    mouths = cut_mouths(footage.frames(), pixels)
    late = offset.seconds if offset.certain else 0.0
    return Recorded(path.resolve().stem, mouths, samples, late)
