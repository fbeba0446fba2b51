"""The first steps of preprocessing: a video file -> verdicts, frames and sound in the folder."""

import itertools

import numpy as np
from tqdm import tqdm

from fg3dgs_jax.clip import processed
from fg3dgs_jax.experts.face import face_landmarker
from fg3dgs_jax.media import loudness, video
from fg3dgs_jax.preprocessing.check import av_offset, framing, sample, verdicts
from fg3dgs_jax.preprocessing.resume import releasing


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
    track = face_landmarker.detect(model, sketches.watch(pictures), processed.FPS)
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


def read(folder, clip):
    """Frames of a `video.Video`; returns the numbers of those that begin another scene."""
    if not folder.has("read", ("frames.npy", "cuts.json")):
        frames = folder.array("frames", (clip.num_frames, clip.height, clip.width, 3))
        thumbs = np.empty((clip.num_frames, *sample.THUMB[::-1]), np.float32)
        pictures = tqdm(clip.frames(), "frames", clip.num_frames, unit="frame")
        for i, picture in enumerate(releasing(pictures, frames)):
            frames[i] = picture
            thumbs[i] = sample.thumb(picture)
        folder.keep("frames", frames)
        folder.save("cuts", list(sample.cuts_in(thumbs)))
        folder.finish("read")
    return folder.load("cuts")


def listen(folder, clip):
    """Sound of a `video.Video`, at the common level.

    Returns what it depends on: {"av_offset": s, "gain_db": dB}.
    """
    made_by = {"av_offset": clip.av_offset, "gain_db": loudness.gain_db(clip.samples)}
    if not folder.has("listen", ("audio.wav",), made_by):
        folder.begin("listen")
        samples = loudness.apply_gain(clip.samples, made_by["gain_db"])
        video.write_wav(folder.path / "audio.wav", samples)
        folder.finish("listen", made_by)
    return made_by


def lateness(folder, track):
    """What lips and sound say about each other over the whole clip: an `av_offset.Offset`."""
    samples = video.read_wav(folder.path / "audio.wav")
    return av_offset.estimate(track.pixels, track.valid, samples)
