"""Another project's folder -> a processed folder: the job, its own steps, and the list of all.

Frames, poses, labels, torso, plate, sound and whatever features and action units it has come from
that folder (`preprocessing/foreign/layout.py`). The 478 landmarks and the blendshapes, which no
such folder has, come from the face landmarker.
"""

import dataclasses
import functools
import os
from typing import Any

import numpy as np

from fg3dgs_jax.clip import format, over_time, streams
from fg3dgs_jax.media import clock, video
from fg3dgs_jax.media.progress import progress
from fg3dgs_jax.preprocessing import steps
from fg3dgs_jax.preprocessing.express import sources
from fg3dgs_jax.preprocessing.foreign import labels as labels_lib
from fg3dgs_jax.preprocessing.foreign import layout, poses
from fg3dgs_jax.preprocessing.foreign.source import Source
from fg3dgs_jax.preprocessing.job import Job
from fg3dgs_jax.preprocessing.report import page
from fg3dgs_jax.preprocessing.resume import Folder
from fg3dgs_jax.preprocessing.settings import Consent, PreprocessSettings
from fg3dgs_jax.preprocessing.step import Step
from fg3dgs_jax.weights import store

VERSION = 1  # of the folder's key: another number makes all steps be done again
MAX_UNKNOWN = 0.01  # of a parsing picture: more pixels of no known colour are reported
MAX_SILENCE = 0.1  # s that sound and pictures may differ in length without a report


@dataclasses.dataclass
class FolderJob(Job):
    """A processed folder to be made of another project's folder."""

    source: Source

    @property
    def num_frames(self) -> int:
        """T."""
        return self.source.num_frames

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, px, of the folder's pictures."""
        return self.source.height, self.source.width

    @property
    def gauge(self) -> dict[str, Any]:
        """The scale (m per unit) and origin that the poses got, of `gauge.json`."""
        return self.folder.load("gauge")

    @property
    def defects(self) -> list[str]:
        """What was odd about the source and put right, in words."""
        defects = [*self.source.defects, *self.folder.load("odd")]
        if unknown := self.folder.load("unknown"):
            defects.append(
                f"{len(unknown)} pictures of parsing have more than {MAX_UNKNOWN:.0%} of their "
                f"pixels in none of the six colours, {unknown[0]}.png for one: taken for background"
            )
        splits, kept = split_facts(self.source)
        if not kept:
            defects.append(
                f"the split is not theirs (train {splits['train']}, val {splits['val']}) but the "
                "first 10/11 of the frames and the rest"
            )
        return defects

    def meta(self) -> dict[str, Any]:
        """Arguments of `format.save_meta`."""
        source = self.source
        splits, kept = split_facts(source)
        return {
            "num_frames": source.num_frames,
            "width": source.width,
            "height": source.height,
            "intrinsics": (source.intrinsics[0], *source.intrinsics),
            "source": {
                "file": source.path.name,
                "sha256": source.digest,
                "seconds": source.num_frames / clock.FPS,
            },
            "expression": self.expression.origin,
            "weights": self.weights(),
            "consent": self.consent._asdict(),
            "parser": "imported",
            "imported": {
                "layout": layout.LAYOUT,
                "frames": source.pictures,
                "features": sorted(source.features),
                "metres_per_unit": self.gauge["scale"],
                "origin": self.gauge["origin"],
                "split": splits,
                "split_kept": kept,
                "defects": self.defects,
            },
        }


def open_job(
    path: os.PathLike | str,
    out: os.PathLike | str,
    consent: Consent,
    settings: PreprocessSettings,
) -> FolderJob:
    """Opens another project's folder, the networks and the folder to be made.

    Args:
      path: a folder in the layout of AD-NeRF, ER-NeRF or TalkingGaussian.
      out: the processed folder.
      consent: the ground on which the likeness is used.
      settings: its `features` are computed besides those whose files are in the folder, and its
        `expression` takes the place of the folder's `au.csv`.

    Raises:
      ValueError: files that are missing, all of them named, or of no use; one line.
    """
    source = layout.open_source(path, _missing_weights())
    landmarker = store.require("face_landmarker")
    emotion = sources.emotion_network(settings.emotion)
    extractors = steps.choose_extractors(settings.features)
    units = settings.expression or source.action_units
    return FolderJob(
        folder=Folder(out, {"version": VERSION, "imported": source.digest}),
        consent=consent,
        landmarker=landmarker,
        expression=sources.open_sources(emotion, units, source.num_frames),
        extractors=tuple(name for name in extractors if name not in source.features),
        source=source,
    )


def _missing_weights() -> list[str]:
    try:
        store.require("face_landmarker")
    except store.WeightsMissing as error:
        return [f"the face landmarker, which finds the 478 landmarks [{error}]"]
    return []


def read(job: FolderJob) -> None:
    """Writes frames and sound, and notes what is odd about the sound."""
    folder, source = job.folder, job.source
    numbers = progress(range(source.num_frames), desc="frames", unit="frame")
    with folder.streams("frames") as sinks:
        for i in numbers:
            sinks.add(streams.frame_planes(source.frame(i)))
    samples = video.read_audio(source.sound)
    length = source.num_frames * clock.SAMPLE_RATE // clock.FPS
    excess = (len(samples) - length) / clock.SAMPLE_RATE  # s
    odd = []
    if abs(excess) > MAX_SILENCE:
        fate = "its end cut" if excess > 0 else "silence put at its end"
        odd = [f"{source.sound.name} is {excess:+.2f} s longer than the pictures: {fate}"]
    samples = np.pad(samples[:length], (0, max(0, length - len(samples))))
    video.write_wav(folder.path / "audio.wav", samples)
    folder.save("odd", odd)


def pose(job: FolderJob) -> None:
    """Brings their cameras into our axes and unit, and bridges landmarks that are not seen."""
    source, track = job.source, job.track
    steps.check_faces(track.num_faces)
    fit = poses.track(
        source.poses,
        source.num_frames,
        source.intrinsics,
        track.pixels,
        track.valid,
        source.height,
    )
    format.save_arrays(
        job.folder.path,
        camera={
            "world_to_camera": fit.world_to_camera,
            "valid": fit.valid,
            "error": fit.error,
            "focal": np.float64(source.intrinsics[0]),
            "head_points": fit.points,
        },
        landmarks={"pixels": over_time.bridge(track.pixels, track.valid), "valid": track.valid},
    )
    job.folder.save("gauge", {"scale": fit.scale, "origin": fit.origin.tolist()})


def layers(job: FolderJob) -> None:
    """Writes labels, plate and torso, and notes pictures whose colours are not known."""
    folder, source, frames = job.folder, job.source, job.frames
    points = over_time.smooth(job.landmarks)
    unknown = []
    bar = progress(frames, desc="labels and torso", unit="frame")
    with folder.streams("labels", "torso", "alpha") as sinks:
        for i, frame in enumerate(bar):
            classes, share = labels_lib.classes(source.parsing(i))
            labels = labels_lib.labels_of(frame, points[i], classes, source.teeth_mask(i))
            sinks.add(streams.layer_planes(frame, labels, source.torso(i)))
            if share > MAX_UNKNOWN:
                unknown.append(i)
    format.save_arrays(folder.path, background=source.plate())
    folder.save("unknown", unknown)


def features(name: str, job: FolderJob) -> None:
    """Takes the audio features that the source has, under our name, or computes them."""
    if name not in job.source.features:
        steps.extract(name, job)
        return
    rows = job.source.feature_rows(name)
    format.save_arrays(job.folder.path, **{f"audio_{name}": rows})


def split_facts(source: Source) -> tuple[dict[str, list[int]], bool]:
    """Their split as [first, last + 1] of each part, and whether ours puts every frame alike."""
    spans = {s: [ids[0], ids[-1] + 1] if ids else [] for s, ids in source.splits.items()}
    cut = format.train_frames(source.num_frames)
    train, val = (source.splits[s] for s in ("train", "val"))
    return spans, all(i < cut for i in train) and all(i >= cut for i in val)


def report(job: FolderJob) -> None:
    """Writes the page that shows what was made."""
    page.write(
        job.folder.path,
        page.Summary(
            facts={
                "source": job.source.path.name,
                "imported from": f"the layout of {layout.LAYOUT}",
                "metres per unit of its poses": f"{job.gauge['scale']:.4g}",
                "audio features": ", ".join((*sorted(job.source.features), *job.extractors)),
                "consent": str(job.consent),
            },
            lateness=job.lateness,
            warnings=job.defects,
            seconds=job.folder.seconds,
        ),
    )


STEPS = (
    steps.ROOM,
    Step("read", read, makes=("frames.mkv", "audio.wav", "odd.json")),
    steps.FACES,
    Step("pose", pose, needs=("faces.npz",), makes=("camera.npz", "landmarks.npz", "gauge.json")),
    steps.EXPRESSION,
    Step(
        "layers",
        layers,
        needs=("frames.mkv", "landmarks.npz"),
        makes=(*steps.LAYERS, "unknown.json"),
    ),
    *(
        dataclasses.replace(
            step,
            run=functools.partial(features, step.name),
            applies=lambda job, name=step.name: name in (*job.source.features, *job.extractors),
        )
        for step in steps.FEATURES
    ),
    Step(
        "report",
        report,
        needs=("faces.npz", "gauge.json", "odd.json", "unknown.json", *steps.RESULTS),
        makes=("report.html",),
        always=True,
    ),
)
