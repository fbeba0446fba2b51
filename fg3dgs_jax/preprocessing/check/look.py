"""The first steps of preprocessing: a video file -> verdicts, frames and sound in the folder."""

import itertools

import numpy as np
from tqdm import tqdm

from fg3dgs_jax.experts.face import face_landmarker
from fg3dgs_jax.media import clock
from fg3dgs_jax.preprocessing.check import framing, sample, verdicts


def look(clip, model, size=None, framed=None):
    """Judges a `video.Video` by a sample of it, and frames the head where that is wanted.

    Args:
      clip: the opened video, not cropped.
      model: face_landmarker.task.
      size: px of the square that the head is cropped to; 0: keep the picture; None: 512 if the
        picture is larger than 1024 px.
      framed: the first two results of an earlier look at the same video, or None.

    Returns:
      (window or None, size or None, rows): the arguments of `clip.cropped`, and the table.
    """
    pieces = sample.plan(clip.num_frames, clip.samples)
    frames = np.concatenate([np.arange(first, first + count) for first, count in pieces])
    sketches = sample.Sketches(len(frames))
    pictures = itertools.chain.from_iterable(clip.frames(*piece) for piece in pieces)
    pictures = tqdm(pictures, "video check", len(frames), unit="frame")
    track = face_landmarker.detect(model, sketches.watch(pictures), clock.FPS)
    whole = (clip.height, clip.width)
    window, size = framed or framing.choose(track.pixels[track.valid], whole, size)
    rows = verdicts.check(
        sample.Evidence(
            fps=clip.source_fps,
            size=whole,
            output=(size, size) if window else whole,
            window=window,
            num_frames=clip.num_frames,
            samples=clip.samples,
            frames=frames,
            pixels=track.pixels,
            num_faces=track.num_faces,
            rotation=track.rotation,
            thumbs=sketches.thumbs,
            greys=sketches.greys,
            av_offset=clip.av_offset,
        )
    )
    return window, size, rows


def check(folder, clip, model, size):
    """`look` at a video, once; prints the table.

    Returns (the video, cropped if need be; the rows).
    """
    framed = None
    if folder.has("framing", ("framing.json",)):  # kept when only the sound is moved
        framed = folder.load("framing")
    if framed is None or not folder.has("check", ("check.json",), clip.av_offset):
        window, px, rows = look(clip, model, size, framed)
        framed = (window, px)
        folder.save("framing", framed)
        folder.save("check", [row._asdict() for row in rows])
        folder.finish("check", clip.av_offset)  # whose time it was
        folder.finish("framing")
    rows = [verdicts.Row(**row) for row in folder.load("check")]
    print(verdicts.table(rows))
    return clip.cropped(*framed) if framed[0] else clip, rows
