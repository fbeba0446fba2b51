"""A video -> a processed folder: the job, its own steps, and the list of all steps in order."""

import dataclasses
import functools
import os
import pathlib
from typing import Any

import numpy as np

from fg3dgs_jax.clip import av_offset, format, over_time, streams
from fg3dgs_jax.media import clock, loudness, video
from fg3dgs_jax.media.progress import progress
from fg3dgs_jax.preprocessing import steps
from fg3dgs_jax.preprocessing.check import framing, look, sample, verdicts
from fg3dgs_jax.preprocessing.express import sources
from fg3dgs_jax.preprocessing.job import Job
from fg3dgs_jax.preprocessing.label import layers, parsers
from fg3dgs_jax.preprocessing.report import page
from fg3dgs_jax.preprocessing.resume import Folder
from fg3dgs_jax.preprocessing.scene import choice, scene, words
from fg3dgs_jax.preprocessing.settings import AUTO, MIN_SECONDS, Consent, PreprocessSettings
from fg3dgs_jax.preprocessing.step import Step
from fg3dgs_jax.preprocessing.track import head_pose
from fg3dgs_jax.weights import files, store

VERSION = 2  # of the folder's key: another number makes all steps be done again


@dataclasses.dataclass
class VideoJob(Job):
    """A processed folder to be made of a video."""

    source: video.Video  # as it was opened, not cropped; its sound is moved by a number only
    offset: float | str  # `PreprocessSettings.av_offset`
    crop_to: int | None  # px, `PreprocessSettings.size`
    parser: parsers.FaceParser
    _sampled: look.Look | None = None

    @property
    def num_frames(self) -> int:
        """T."""
        return self.source.num_frames

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, px, of the folder's pictures."""
        return self.cropped.height, self.cropped.width

    @property
    def framed(self) -> look.Framed:
        """What part of the picture is processed, of `framing.json`."""
        return look.Framed(*self.folder.load("framing"))

    @property
    def cropped(self) -> video.Video:
        """The video whose pictures the folder gets."""
        window, size = self.framed
        return self.source.cropped(window, size) if window and size else self.source

    @property
    def rows(self) -> list[verdicts.Row]:
        """The verdicts on the video, of `check.json`."""
        return [verdicts.Row(**row) for row in self.folder.load("check")]

    @property
    def cuts(self) -> list[int]:
        """Frames that begin another scene, of `cuts.json`."""
        return self.folder.load("cuts")

    @property
    def left_out(self) -> list[choice.Span]:
        """The frames that do not show the person in the scene of the clip, of `scene.json`."""
        return [choice.Span(*span) for span in self.folder.load("scene")["left_out"]]

    @property
    def scene_lines(self) -> list[str]:
        """What the user is told of the frames that are left out."""
        others = self.folder.load("scene")["others"]
        return words.lines(self.left_out, others, self.num_frames, self.source.skipped / clock.FPS)

    @property
    def correction(self) -> av_offset.Correction:
        """By how much the sound is moved back, of `offset.json`."""
        seconds, measured = self.folder.load("offset")
        return av_offset.Correction(seconds, measured and av_offset.Offset(*measured))

    @functools.cached_property
    def samples(self) -> np.ndarray:
        """int16 [T * 640], the sound where it belongs."""
        return self.source.moved(self.correction.seconds).samples

    @functools.cached_property
    def sound_record(self) -> dict[str, float]:
        """What is done to the sound: it is moved by -av_offset s and amplified by gain_db."""
        own = np.repeat(self.own, clock.SAMPLES_PER_FRAME)
        gain = loudness.gain_db(self.samples[own])
        return {"av_offset": self.correction.seconds, "gain_db": gain}

    def sampled(self) -> look.Look:
        """A look at the video, taken once for the steps that ask for it."""
        self._sampled = self._sampled or look.take(self.source, self.landmarker)
        return self._sampled

    def forget_sample(self) -> None:
        """Gives back the memory of the sampled pictures."""
        self._sampled = None

    def meta(self) -> dict[str, Any]:
        """Arguments of `format.save_meta`."""
        with np.load(self.folder.path / "camera.npz") as fields:
            focal = fields["focal"]
        height, width = self.size
        measured = self.correction.measured
        return {
            "num_frames": self.num_frames,
            "width": width,
            "height": height,
            "intrinsics": (focal, focal, width / 2, height / 2),
            "source": {
                "file": self.source.path.name,
                "sha256": files.digest(self.source.path),
                "seconds": self.num_frames / clock.FPS,
                "start": self.source.skipped / clock.FPS,
            },
            "expression": self.expression.origin,
            "weights": self.weights() | self.parser.made_by["weights"],
            "consent": self.consent._asdict(),
            "parser": self.parser.name,
            # (row, column, height, width) px of the source's pictures; None: all.
            "window": self.framed.window,
            "cuts": self.cuts,
            "left_out": [list(span) for span in self.left_out],
            "sound": {
                **self.sound_record,
                "track": self.source.source.track.number,
                "inverted": self.source.source.inverted,
                "lateness": self.lateness._asdict(),
                # What moved it, or left it; None: the user set the number.
                "auto": measured and measured._asdict(),
            },
        }


def open_job(
    path: os.PathLike | str,
    out: os.PathLike | str,
    consent: Consent,
    settings: PreprocessSettings,
) -> VideoJob:
    """Opens the video, the networks and the folder; whatever is missing is refused here.

    Args:
      path: any video with sound.
      out: the processed folder.
      consent: the ground on which the likeness is used.
      settings: the rest.

    Raises:
      ValueError: a video, weights or package that cannot be used; one line.
    """
    extractors = steps.choose_extractors(settings.features)
    parser = parsers.choose(settings.parser)
    landmarker = store.require("face_landmarker")
    emotion = sources.emotion_network(settings.emotion)
    source = open_video(path, settings)
    begin = source.skipped / clock.FPS
    expression = sources.open_sources(emotion, settings.expression, source.num_frames, begin)
    key = {
        "version": VERSION,
        "source": files.digest(path),
        "frames": source.num_frames,
        "size": framing.output_size((source.height, source.width), settings.size),
        # Folders made before a track or a beginning could be chosen have no such entry.
        **({"audio_track": settings.audio_track} if settings.audio_track else {}),
        **({"start": source.skipped} if source.skipped else {}),
    }
    return VideoJob(
        folder=Folder(out, key),
        consent=consent,
        landmarker=landmarker,
        expression=expression,
        extractors=extractors,
        source=source,
        offset=settings.av_offset,
        crop_to=settings.size,
        parser=parser,
    )


def open_video(path: os.PathLike | str, settings: PreprocessSettings) -> video.Video:
    """The video that the steps work on; `auto` leaves its sound as it is for the time being."""
    return video.read_video(
        pathlib.Path(path),
        min_frames=MIN_SECONDS * clock.FPS,
        start=settings.start,
        end=settings.end,
        max_seconds=settings.max_seconds,
        av_offset=0.0 if settings.av_offset == AUTO else settings.av_offset,
        audio_track=settings.audio_track,
    )


def frame_head(job: VideoJob) -> None:
    """Chooses what part of the picture is processed; kept when only the sound is moved."""
    job.folder.save("framing", look.frame_head(job.source, job.sampled(), job.crop_to))


def check(job: VideoJob) -> None:
    """Judges the video by a sample of it."""
    rows = look.judge(job.source, job.sampled(), job.framed, job.offset == AUTO)
    job.folder.save("check", [row._asdict() for row in rows])
    job.forget_sample()


def print_verdicts(job: VideoJob) -> None:
    """Prints the table of verdicts."""
    print(verdicts.table(job.rows))


def read(job: VideoJob) -> None:
    """Writes the frames, and counts the cuts on the way."""
    source, folder = job.cropped, job.folder
    thumbs = np.empty((source.num_frames, *sample.THUMB[::-1]), np.float32)
    bar = progress(source.frames(), desc="frames", total=source.num_frames, unit="frame")
    with folder.streams("frames") as sinks:
        for i, picture in enumerate(bar):
            sinks.add(streams.frame_planes(picture))
            thumbs[i] = sample.thumb(picture)
    folder.save("cuts", list(sample.cuts_in(thumbs)))


def decide_offset(job: VideoJob) -> None:
    """Decides by how much the sound is moved; kept for the folder from then on."""
    correction = av_offset.Correction(job.source.av_offset, None)
    if job.offset == AUTO:
        track = job.track
        samples = job.source.samples
        predicted = job.predicted_lips(samples)
        measured = av_offset.estimate(track.pixels, track.valid, samples, predicted)
        correction = av_offset.correct(measured)
        print(f"lips and sound: {correction}")
    job.folder.save("offset", correction)


def listen(job: VideoJob) -> None:
    """Writes the sound in its place, at the common level."""
    samples = loudness.apply_gain(job.samples, job.sound_record["gain_db"])
    video.write_wav(job.folder.path / "audio.wav", samples)


def pose(job: VideoJob) -> None:
    """Fits cameras to the landmarks and the skin, and bridges landmarks that are not seen."""
    track = job.track
    fit = head_pose.fit_head(
        head_pose.Sighting(track.pixels, track.depth, track.rotation, track.valid, job.size),
        frames=job.frames,
        cuts=job.borders,
        progress=lambda rounds: progress(rounds, desc="head pose", unit="round"),
    )
    format.save_arrays(
        job.folder.path,
        camera={
            "world_to_camera": fit.world_to_camera,
            "valid": fit.valid,
            "error": fit.error,
            "focal": np.float64(fit.focal),
            "head_points": fit.points,
        },
        landmarks={"pixels": over_time.bridge(track.pixels, track.valid), "valid": track.valid},
    )


def report(job: VideoJob) -> None:
    """Writes the page that shows what was made."""
    # Once more: the bars of all steps lie between the table and the end.
    print(f"video check: {verdicts.conclusion(job.rows)}")
    level = f"{job.sound_record['gain_db']:+.1f} dB to the common level"
    moved = job.correction.seconds
    page.write(
        job.folder.path,
        page.Summary(
            facts={
                "source": job.source.path.name,
                "face parser": job.parser.description,
                "audio features": ", ".join(job.extractors),
                "emotion network": job.expression.emotion.name,
                "consent": str(job.consent),
                "sound": level,
                "sound against the lips": str(job.correction),
            },
            lateness=job.lateness,
            checks=job.rows,
            cuts=job.cuts,
            own=job.own,
            warnings=job.scene_lines,
            seconds=job.folder.seconds,
            moved=moved,
        ),
    )


CUTS, SCENE, OFFSET = ("cuts.json",), scene.FILES, ("offset.json",)
STEPS = (
    Step("framing", frame_head, makes=("framing.json",)),
    Step(
        "check",
        check,
        needs=("framing.json",),
        makes=("check.json",),
        made_by=lambda job: job.offset,  # its verdict on lips and sound
    ),
    Step("verdicts", print_verdicts, needs=("check.json",), always=True),
    dataclasses.replace(steps.ROOM, needs=("framing.json",)),
    Step("read", read, needs=("framing.json",), makes=("frames.mkv", *CUTS)),
    dataclasses.replace(steps.FACES, needs=(*steps.FACES.needs, *CUTS)),
    *scene.STEPS,
    Step(
        "offset",
        decide_offset,
        needs=("faces.npz", *SCENE),
        makes=OFFSET,
        made_by=lambda job: job.made_by(job.offset),
    ),
    Step(
        "listen",
        listen,
        needs=(*OFFSET, *SCENE),
        makes=("audio.wav",),
        made_by=lambda job: job.sound_record,
    ),
    Step(
        "pose",
        pose,
        needs=("framing.json", "frames.mkv", "faces.npz", *CUTS, *SCENE),
        makes=("camera.npz", "landmarks.npz"),
        made_by=lambda job: job.made_by(head_pose.MADE_BY),
    ),
    dataclasses.replace(
        steps.EXPRESSION,
        needs=(*steps.EXPRESSION.needs, *CUTS, *SCENE),
        made_by=lambda job: job.made_by(job.expression.origin),
    ),
    Step(
        "layers",
        layers.layers,
        needs=("frames.mkv", "landmarks.npz", *CUTS, *SCENE),
        makes=steps.LAYERS,
        version=layers.VERSION,
        made_by=lambda job: job.made_by(job.parser.made_by),
    ),
    *steps.FEATURES,
    Step(
        "report",
        report,
        needs=(
            "framing.json",
            "check.json",
            "faces.npz",
            *CUTS,
            *SCENE,
            *OFFSET,
            *steps.RESULTS,
        ),
        makes=("report.html",),
        always=True,
    ),
)
