"""The steps that both pipelines share: face track, expression, audio features, room on the disk."""

import functools
import itertools
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from fg3dgs_jax.clip import format, lips, over_time, streams
from fg3dgs_jax.experts.audio import audio_features, lip_prior
from fg3dgs_jax.experts.face import face_landmarker
from fg3dgs_jax.media import clock, video
from fg3dgs_jax.media.progress import progress
from fg3dgs_jax.preprocessing.express import channels
from fg3dgs_jax.preprocessing.job import Job
from fg3dgs_jax.preprocessing.settings import MIN_SECONDS
from fg3dgs_jax.preprocessing.step import Step
from fg3dgs_jax.system import memory
from fg3dgs_jax.weights import files, store

PRIOR = f"{lip_prior.NAME}.npz"  # of a folder with the features `lips`
MIN_FACES = 0.5  # of the frames must show a face
MAX_SECOND_FACE = 0.2  # of the frames may show a second face
# Bytes at the peak: of networks and libraries, and what grows with a clip (docs/reliability.md).
MEMORY, MEMORY_OF_FRAME = 1.3e9, 3e4
FACES_CHUNK = 1500  # frames, a minute: what an interruption costs at most


class PreprocessError(ValueError):
    """A video that cannot become a processed folder; one line."""


def make_room(job: Job) -> None:
    """Refuses to begin what the disk has no room for, and foresees the memory."""
    needed = MEMORY + MEMORY_OF_FRAME * job.num_frames
    print(memory.foresee(needed, "process less at once: --max_seconds"))
    job.folder.make_room((job.num_frames, *job.size))


def faces(job: Job) -> None:
    """Finds the landmarks of every frame, as the fields of a FaceTrack.

    Every chunk is begun afresh, so that work taken up after an interruption gives the same. So is
    every scene, because the landmarker follows a face from frame to frame.
    """
    folder, frames = job.folder, job.frames
    starts = sorted({*range(0, len(frames), FACES_CHUNK), *job.cuts})
    for k, (start, stop) in enumerate(itertools.pairwise([*starts, len(frames)])):
        if folder.chunk("faces", k).exists():
            continue
        bar = functools.partial(progress, desc=f"landmarks {k + 1}/{len(starts)}", unit="frame")
        track = face_landmarker.detect(job.landmarker, frames[start:stop], clock.FPS, bar)
        fields = {name: np.asarray(value) for name, value in track._asdict().items()}
        format.save_arrays(folder.path, **{folder.chunk("faces", k).stem: fields})
    track = _joined([folder.chunk("faces", k) for k in range(len(starts))])
    format.save_arrays(folder.path, faces=track)


def _joined(chunks: Sequence[pathlib.Path]) -> dict[str, np.ndarray]:
    """The fields of a FaceTrack saved in chunks."""
    parts = []
    for path in chunks:
        with np.load(path) as fields:
            parts.append({k: fields[k] for k in fields.files})
    names = max((part.pop("names") for part in parts), key=len)  # none where no face was seen
    return {k: np.concatenate([p[k] for p in parts]) for k in parts[0]} | {"names": names}


def check_faces(num_faces: np.ndarray) -> None:
    """Refuses a clip by how many faces [T] its frames show.

    Raises:
      PreprocessError: no face in too many frames, or a second one.
    """
    one, two = np.mean(num_faces > 0), np.mean(num_faces > 1)
    if one < MIN_FACES:
        raise PreprocessError(
            f"no face in {1 - one:.0%} of the frames; expected one face, seen from the front, in "
            "nearly all of them: cut the video to such a part"
        )
    if two > MAX_SECOND_FACE:
        raise PreprocessError(
            f"a second face in {two:.0%} of the frames; expected one person: cut or crop the "
            "video to the one who speaks"
        )


def check_length(own: np.ndarray) -> None:
    """Refuses a clip of which too little shows its person, bool [T].

    Raises:
      PreprocessError: fewer than `MIN_SECONDS`.
    """
    if own.sum() < MIN_SECONDS * clock.FPS:
        raise PreprocessError(
            f"the scene that is seen longest has {own.sum() / clock.FPS:.2f} s in which its person "
            f"is seen; expected at least {MIN_SECONDS} s of one person in one scene: use another "
            "video, or another part of it with --start and --end"
        )


def expression(job: Job) -> None:
    """Computes emotions, blendshapes, gaze and action units of every frame."""
    track, cuts = job.track, job.borders
    e, names = channels.expression_channels(track.blendshapes, track.names, track.valid, cuts)
    if job.expression.units is not None:
        e, names = channels.with_openface(e, names, job.expression.units)
    network = job.expression.emotion.network
    if network is not None:
        frames, landmarks = job.frames, job.landmarks
        pairs = zip(frames, landmarks, strict=True)
        bar = progress(pairs, desc="emotion", total=len(frames), unit="frame")
        emotions = np.stack([network.call(frame, points) for frame, points in bar])
        e = np.concatenate([over_time.smooth(emotions, track.valid, cuts), e], 1)
        names = (*network.names, *names)
    fields = {"e": e.astype(np.float32), "names": np.array(names)}
    format.save_arrays(job.folder.path, expression=fields)


def extract(name: str, job: Job) -> None:
    """Computes the audio features of the extractor `name`.

    With `lips` the folder keeps the prior that made them, which has learnt how the clip's person
    moves the lips: new speech must go through the same one.
    """
    with progress(desc=f"sound, {name}", total=1, unit="extractor") as bar:
        samples = video.read_wav(job.folder.path / "audio.wav")
        if name == "lips":
            track = job.track
            curves = lips.lip_curves(lips.in_head_frame(track.pixels, track.depth, track.rotation))
            train = format.splits(job.own)["train"]
            learnt = train[track.valid[train]]
            prior, rows = audio_features.persons_lips(samples, np.stack(curves, 1), learnt)
            lip_prior.save(job.folder.path / PRIOR, prior)
        else:
            rows = audio_features.extract(name, samples, job.num_frames)
        format.save_arrays(job.folder.path, **{f"audio_{name}": rows})
        bar.update()


def choose_extractors(names: Iterable[str] | None) -> tuple[str, ...]:
    """The extractors to run: `names`, or mel, and those of Whisper where its weights are installed.

    Raises:
      ValueError: weights of one of the names are missing; one line.
    """
    if names is not None:
        for name in names:
            audio_features.require(name)
        return tuple(names)
    if store.find("whisper_tiny_en") is None:
        print("whisper and lips left out: Whisper's weights are not installed (mel is there)")
        return ("mel",)
    return ("mel", "whisper", "lips")


def _feature_step(name):
    """The step of one extractor; a job has a use for those that were asked for."""
    is_lips = name == "lips"

    def made_by(job):
        if not is_lips:
            return job.sound_record
        return job.made_by([job.sound_record, files.digest(lip_prior.require())])

    return Step(
        name,
        functools.partial(extract, name),
        needs=("audio.wav", "faces.npz") if is_lips else ("audio.wav",),
        version=2 if is_lips else 1,
        makes=(f"audio_{name}.npy", PRIOR) if is_lips else (f"audio_{name}.npy",),
        made_by=made_by,
        applies=lambda job: name in job.extractors,
    )


ROOM = Step("room", make_room, always=True)
FACES = Step("faces", faces, needs=("frames.mkv",), makes=("faces.npz",))
EXPRESSION = Step(
    "expression",
    expression,
    needs=("frames.mkv", "faces.npz", "landmarks.npz"),
    makes=("expression.npz",),
    made_by=lambda job: job.expression.origin,
)
FEATURES = tuple(map(_feature_step, audio_features.EXTRACTORS))
# What every pipeline makes of the frames.
LAYERS = (*(name for name in streams.STREAMS if name != "frames.mkv"), "background.png")
# What every pipeline leaves for its report and for those who read the folder.
RESULTS = (
    *streams.STREAMS,
    "background.png",
    "camera.npz",
    "landmarks.npz",
    "expression.npz",
    "audio.wav",
)
