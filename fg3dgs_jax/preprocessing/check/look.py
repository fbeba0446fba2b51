"""A look at a video before the long work: a sample of it, the frame about the head, verdicts."""

import contextlib
import itertools
import os
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fg3dgs_jax.clip import format
from fg3dgs_jax.experts.face import face_landmarker
from fg3dgs_jax.media import clock, video
from fg3dgs_jax.media.progress import progress
from fg3dgs_jax.preprocessing.check import framing, sample, sound_rows, verdicts
from fg3dgs_jax.preprocessing.scene import choice, looks


class Look(NamedTuple):
    """What a sample of a video shows."""

    frames: np.ndarray  # int [N], numbers of the frames in the sample
    track: face_landmarker.FaceTrack  # of N frames
    sketches: sample.Sketches  # what is kept of their pictures
    other_tracks: Mapping[int, sound_rows.Heard]  # by number: sound tracks that are not used


class Framed(NamedTuple):
    """The part of the picture that is processed: arguments of `Video.cropped`, or both None."""

    window: tuple[int, int, int, int] | None  # (row, column, height, width) px
    size: int | None  # px of the square that it is resized to


def take(source: video.Video, landmarker: os.PathLike | str) -> Look:
    """Looks at a sample of an opened video, not cropped, with face_landmarker.task."""
    pieces = sample.plan(source.num_frames, source.samples)
    frames = np.concatenate([np.arange(first, first + count) for first, count in pieces])
    sketches = sample.Sketches(len(frames))
    pictures = itertools.chain.from_iterable(source.frames(*piece) for piece in pieces)
    pictures = progress(pictures, desc="video check", total=len(frames), unit="frame")
    track = face_landmarker.detect(landmarker, sketches.watch(pictures), clock.FPS)
    return Look(frames, track, sketches, other_tracks(source))


def other_tracks(source: video.Video) -> dict[int, sound_rows.Heard]:
    """How much is heard of the sound tracks of the file that are not used, by their number."""
    heard = {}
    for track in source.source.tracks:
        if track.number != source.source.track.number:
            with contextlib.suppress(video.AudioError):  # one that cannot be decoded
                samples = video.read_audio(source.path, track.number)
                heard[track.number] = sound_rows.heard(samples)
    return heard


def frame_head(source: video.Video, look: Look, size: int | None = None) -> Framed:
    """Chooses what part of the picture is processed.

    Args:
      source: the video.
      look: a look at it.
      size: px of the square that the head is cropped to. 0: the picture stays as it is. None: 512
        if the picture is larger than 1024 px.
    """
    whole = (source.height, source.width)
    own = look.track.valid & _own(source, look)[0]
    return Framed(*framing.choose(look.track.pixels[own], whole, size))


def _own(source, look):
    """(bool [N], frames of the sample in the scene that is seen longest, its share of the time)."""
    valid, gaps = look.track.valid, np.flatnonzero(np.diff(look.frames) > 1) + 1
    # A frame speaks for those that no other piece of the sample is nearer to.
    pieces = np.split(look.frames, gaps)
    edges = [0.0, *((a[-1] + b[0]) / 2 for a, b in itertools.pairwise(pieces)), source.num_frames]
    weights = np.repeat(np.diff(edges) / [len(p) for p in pieces], [len(p) for p in pieces])
    thumbs = look.sketches.thumbs
    cuts = sorted({*map(int, gaps), *sample.cuts_in(thumbs)})
    seen = choice.Seen(looks.Looks(thumbs, None), look.track.pixels, valid, cuts)
    own = format.own_frames(len(valid), choice.choose(seen, weights))
    return own, float(weights[own].sum() / weights.sum())


def judge(
    source: video.Video, look: Look, framed: Framed, automatic: bool = False
) -> list[verdicts.Row]:
    """The table of verdicts on a video.

    Args:
      source: the video.
      look: a look at it.
      framed: the part of the picture that is to be processed.
      automatic: sound that is out of step will be moved without being asked for.
    """
    window, size = framed
    whole = (source.height, source.width)
    return verdicts.check(
        sample.Evidence(
            fps=source.source_fps,
            size=whole,
            output=(size, size) if window and size else whole,
            window=window,
            num_frames=source.num_frames,
            samples=source.samples,
            frames=look.frames,
            pixels=look.track.pixels,
            num_faces=look.track.num_faces,
            rotation=look.track.rotation,
            thumbs=look.sketches.thumbs,
            greys=look.sketches.greys,
            source=source.source,
            file_seconds=source.source.timeline.end - source.start,
            begin=source.skipped / clock.FPS,
            other_tracks=look.other_tracks,
            av_offset=None if automatic else source.av_offset,
            own=_own(source, look)[1],
        )
    )
