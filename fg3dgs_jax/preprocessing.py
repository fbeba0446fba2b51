"""The steps of preprocessing, each from the folder's files to the folder's files.

A step that is done for the same input is not done again; the program `preprocess` says their order.
"""

import itertools
import pathlib

import numpy as np
from tqdm import tqdm

from fg3dgs_jax import audio_features
from fg3dgs_jax.data import (
    av_offset,
    dataset,
    expressions,
    framing,
    layers,
    parsing,
    speech,
    tracking,
    video,
    video_check,
)
from fg3dgs_jax.data import (
    folder as folders,
)
from fg3dgs_jax.experts import face_landmarker, files, weights

MIN_FACES = 0.5  # of the frames must show a face
MAX_SECOND_FACE = 0.2  # of the frames may show a second face
FACES_CHUNK = 1500  # frames, a minute: what an interruption costs at most


class PreprocessError(ValueError):
    """A video that cannot become a processed folder; one line."""


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
    pieces = video_check.plan(clip.num_frames, clip.samples)
    frames = np.concatenate([np.arange(first, first + count) for first, count in pieces])
    sketches = video_check.Sketches()
    pictures = itertools.chain.from_iterable(clip.frames(*piece) for piece in pieces)
    pictures = tqdm(pictures, "video check", len(frames), unit="frame")
    track = face_landmarker.detect(model, sketches.watch(pictures), dataset.FPS)
    whole = (clip.height, clip.width)
    window, size = framed or framing.choose(track.pixels[track.valid], whole, size)
    rows = video_check.check(
        video_check.Evidence(
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
            thumbs=np.stack(sketches.thumbs),
            greys=sketches.greys,
        )
    )
    return window, size, rows


def check(folder, clip, model, size, late):
    """`look` at a video whose sound was moved back by `late` s, once; prints the table.

    Returns (the video, cropped if need be; the rows).
    """
    framed = None
    if folder.has("framing", ("framing.json",)):  # kept when only the sound is moved
        framed = folder.load("framing")
    if framed is None or not folder.has("check", ("check.json",), late):
        window, px, rows = look(clip, model, size, framed)
        framed = (window, px)
        folder.save("framing", framed)
        folder.finish("framing")
        folder.save("check", [row._asdict() for row in rows])
        folder.finish("check", late)
    rows = [video_check.Row(**row) for row in folder.load("check")]
    print(video_check.table(rows))
    return clip.cropped(*framed) if framed[0] else clip, rows


def read(folder, clip):
    """Frames of a `video.Video`; returns the numbers of those that begin another scene."""
    if not folder.has("read", ("frames.npy", "cuts.json")):
        frames = folder.array("frames", (clip.num_frames, clip.height, clip.width, 3))
        cuts, before = [], None
        pictures = tqdm(clip.frames(), "frames", clip.num_frames, unit="frame")
        for i, picture in enumerate(pictures):
            frames[i] = picture
            thumb = video_check.thumb(picture)
            if before is not None and video_check.is_cut(before, thumb):
                cuts.append(i)
            before = thumb
            if i % 64 == 63:
                folders.release(frames)
        folder.keep("frames", frames)
        folder.save("cuts", cuts)
        folder.finish("read")
    return folder.load("cuts")


def listen(folder, clip, late):
    """Sound of a `video.Video` read with `av_offset=late`, at the common level.

    Returns what it depends on: {"av_offset": s, "gain_db": dB}.
    """
    made_by = {"av_offset": late, "gain_db": speech.gain_db(clip.samples)}
    if not folder.has("listen", ("audio.wav",), made_by):
        folder.begin("listen")
        samples = speech.apply_gain(clip.samples, made_by["gain_db"])
        video.write_wav(folder.path / "audio.wav", samples)
        folder.finish("listen", made_by)
    return made_by


def lateness(folder, track):
    """What lips and sound say about each other over the whole clip: an `av_offset.Offset`."""
    samples = video.read_wav(folder.path / "audio.wav")
    return av_offset.estimate(track.pixels, track.valid, samples)


def faces(folder, model):
    """Landmarks of every frame; returns the FaceTrack. `model`: face_landmarker.task.

    Every chunk is begun afresh, so that work taken up after an interruption gives the same.
    """
    if not folder.has("faces", ("faces.npz",)):
        frames = np.load(folder.path / "frames.npy", mmap_mode="r")
        starts = range(0, len(frames), FACES_CHUNK)
        bar = tqdm(total=len(frames), desc="landmarks", unit="frame")
        for k, start in enumerate(starts):
            chunk = frames[start : start + FACES_CHUNK]
            if not folder.chunk("faces", k).exists():
                track = face_landmarker.detect(model, folders.rows(chunk), dataset.FPS)
                fields = {n: np.asarray(v) for n, v in track._asdict().items()}
                dataset.save_arrays(folder.path, **{folder.chunk("faces", k).stem: fields})
            bar.update(len(chunk))
        bar.close()
        track = _joined([folder.chunk("faces", k) for k in range(len(starts))])
        check_faces(track["num_faces"])
        dataset.save_arrays(folder.path, faces=track)
        folder.finish("faces")
        folder.forget_chunks("faces")
    with np.load(folder.path / "faces.npz") as fields:
        track = face_landmarker.FaceTrack(**{k: fields[k] for k in fields.files})
    return track._replace(names=tuple(map(str, track.names)))


def _joined(chunks):
    """The fields of a FaceTrack saved in chunks."""
    parts = []
    for path in chunks:
        with np.load(path) as fields:
            parts.append({k: fields[k] for k in fields.files})
    names = max((part.pop("names") for part in parts), key=len)  # none where no face was seen
    return {k: np.concatenate([p[k] for p in parts]) for k in parts[0]} | {"names": names}


def check_faces(num_faces):
    """Refuses a clip by how many faces [T] its frames show (PreprocessError)."""
    found, second = np.mean(num_faces > 0), np.mean(num_faces > 1)
    if found < MIN_FACES:
        raise PreprocessError(
            f"no face in {1 - found:.0%} of the frames; expected one face, seen from the front, in "
            "nearly all of them: cut the video to such a part"
        )
    if second > MAX_SECOND_FACE:
        raise PreprocessError(
            f"a second face in {second:.0%} of the frames; expected one person: cut or crop the "
            "video to the one who speaks"
        )


def pose(folder, track, size):
    """Cameras and landmarks; returns the fields of camera.npz. `size`: (height, width) px."""
    if not folder.has("pose", ("camera.npz", "landmarks.npz")):
        fit = tracking.fit_head(track.pixels, track.depth, track.rotation, track.valid, size)
        dataset.save_arrays(
            folder.path,
            camera={
                "world_to_camera": fit.world_to_camera, "valid": fit.valid, "error": fit.error,
                "focal": np.float64(fit.focal), "head_points": fit.points,
            },
            landmarks={"pixels": parsing.bridge(track.pixels, track.valid), "valid": track.valid},
        )  # fmt: skip
        folder.finish("pose")
    with np.load(folder.path / "camera.npz") as fields:
        return {k: fields[k] for k in fields.files}


def origin(expression, units):
    """Where the action units come from, for meta.json."""
    if units is None:
        return {"action_units": "blendshapes (proxies, not calibrated)"}
    return {
        "action_units": "openface",
        "file": pathlib.Path(expression).name,
        "sha256": files.digest(expression),
        "frames_without_a_face": int((~units.valid).sum()),
        "scale": "intensities / 5, AU45 / 2, presences as they are",
        "columns": list(units.names),
    }


def expression(folder, track, network, units, origin):
    """Emotions, blendshapes, gaze, action units."""
    if folder.has("expression", ("expression.npz",), origin):
        return
    e, names = expressions.expression_channels(track.blendshapes, track.names, track.valid)
    if units is not None:
        e, names = expressions.with_openface(e, names, units)
    if network is not None:
        frames = np.load(folder.path / "frames.npy", mmap_mode="r")
        with np.load(folder.path / "landmarks.npz") as fields:
            points = fields["pixels"]
        pairs = zip(folders.rows(frames), points, strict=True)
        bar = tqdm(pairs, "emotion", len(frames), unit="frame")
        found = np.stack([network.call(frame, face) for frame, face in bar])
        e = np.concatenate([parsing.smooth_in_time(found, track.valid), e], 1)
        names = (*network.names, *names)
    folder.begin("expression")
    dataset.save_arrays(
        folder.path, expression={"e": e.astype(np.float32), "names": np.array(names)}
    )
    folder.finish("expression", origin)


def parse(folder, parser):
    """Labels, plate, torso; returns what they depend on."""
    made_by = parser.made_by
    if folder.has("layers", ("labels.npy", "torso.npy", "background.png"), made_by):
        return made_by
    folder.begin("layers")
    frames = np.load(folder.path / "frames.npy", mmap_mode="r")
    with np.load(folder.path / "landmarks.npz") as fields:
        points = parsing.smooth_in_time(fields["pixels"])
    labels = folder.array("labels", frames.shape[:3])
    alphas = folder.array("alpha", frames.shape[:3])
    found = parser.parse(frames, points, dataset.FPS)
    for i, parsed in enumerate(tqdm(found, "labels", len(frames), unit="frame")):
        labels[i], alphas[i] = parsed.labels, np.rint(255 * parsed.alpha)
    plate, _ = layers.background_plate(frames, np.maximum(labels, alphas))
    torso = folder.array("torso", (*frames.shape[:3], 4))
    for i in tqdm(range(len(frames)), "torso", unit="frame"):
        torso[i] = layers.torso_layer(frames[i], labels[i], alphas[i] / np.float32(255), plate)
    dataset.save_arrays(folder.path, background=plate)
    folder.keep("labels", labels)
    folder.keep("torso", torso)
    (folder.path / ".alpha.part.npy").unlink()
    folder.finish("layers", made_by)
    return made_by


def extractors(wanted):
    """The extractors to run; explicitly wanted ones whose weights are absent are an error."""
    if wanted is not None:
        for name in wanted:
            audio_features.require(name)
        return tuple(wanted)
    if weights.find("whisper_tiny_en") is None:
        print("whisper features left out: their weights are not installed (mel is there)")
        return ("mel",)
    return ("mel", "whisper")


def sound(folder, features, num_frames, made_by=True):
    """Writes the wanted features of the sound `made_by`; returns the names of their weights."""
    samples = video.read_wav(folder.path / "audio.wav")
    for name in tqdm(features, "sound", unit="extractor"):
        if not folder.has(name, (f"audio_{name}.npy",), made_by):
            rows = audio_features.extract(name, samples, num_frames)
            dataset.save_arrays(folder.path, **{f"audio_{name}": rows})
            folder.finish(name, made_by)
    used = [audio_features.lookup(name).weights for name in features]
    return [name for name in used if name]
