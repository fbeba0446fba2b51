"""Driven lips: an avatar speaks the sound of videos, its lips against those that spoke it."""

import functools
import json
import os
import pathlib
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from fg3dgs_jax.avatar import store
from fg3dgs_jax.avatar.subject import Subject, open_subject
from fg3dgs_jax.clip import av_offset, lips
from fg3dgs_jax.evaluation import report
from fg3dgs_jax.experts.audio import audio_features
from fg3dgs_jax.experts.face import face_landmarker, mediapipe_runtime
from fg3dgs_jax.experts.optional import OptionalNetwork
from fg3dgs_jax.lipsync import openings, ruler
from fg3dgs_jax.media import clock, plots, video
from fg3dgs_jax.media.progress import progress
from fg3dgs_jax.media.whole_files import whole
from fg3dgs_jax.system import faults
from fg3dgs_jax.weights import store as weights

_ENDS = (("", ""), ("_spread", "spread"))
# Of the terminal's table: figure, heading, format.
COLUMNS = (
    ("frames", "frames", "d"),
    ("lag", "lag", "+d"),
    *((f"{name}{end}", head or name, ".2f") for name in lips.CURVES for end, head in _ENDS),
    ("closures", "shut", "d"),
    *((name, name, ".2f") for name in ("recall", "precision", "f1")),
)


class Driven(NamedTuple):
    """A video and the avatar that spoke its sound."""

    name: str
    path: pathlib.Path
    samples: np.ndarray  # int16 at 16 kHz
    num_frames: int  # T, 25 a second
    truth: lips.LipCurves | None  # of the video, [T] each; None without the landmarker
    render: lips.LipCurves | None  # of the avatar
    late: av_offset.Offset | None  # how late the video's sound is


def drive(
    workdir: os.PathLike[str] | str,
    videos: Sequence[os.PathLike[str] | str],
    *,
    out: os.PathLike[str] | str | None = None,
    data: os.PathLike[str] | str | None = None,
    side_by_side: bool = True,
    late_frames: Sequence[float] | None = None,
) -> dict:
    """Lets an avatar speak the sound of videos and measures its lips against the real ones.

    Writes drive.json, drive.csv, drive.png and a video for each of `videos`. A video that cannot be
    used is left out with a line on standard error.

    Args:
      workdir: folder of a training run.
      videos: files in which somebody is seen and heard speaking.
      out: folder for the results; by default WORKDIR/eval_drive.
      data: the processed folder, or packed file, where it has moved since training.
      side_by_side: also writes drive_NAME.mp4, the video on the left and the avatar on the right.
      late_frames: for each video, by how many frames its sound is known to be late. By default
        what lips and sound of the video are certain of, else 0: the best lag then takes it out.

    Returns:
      What drive.json holds. Without the landmarker's weights its figures are None, with the reason
      in `weights`.

    Raises:
      ValueError: there is no trained avatar or clip, or none of the videos can be used.
    """
    if late_frames is not None and len(late_frames) != len(videos):
        raise ValueError(f"{len(late_frames)} late_frames for {len(videos)} videos; expected equal")
    out = result_folder(workdir, out)
    subject = open_subject(store.load(workdir), data)
    landmarker = load_landmarker()
    out.mkdir(parents=True, exist_ok=True)
    # It is written last: where it stands, all other files do.
    (out / "drive.json").unlink(missing_ok=True)

    driven, lateness, left_out = [], [], {}
    names = unique_names(videos)
    known = late_frames if late_frames is not None else [None] * len(names)
    for name, path, late in zip(names, videos, known, strict=True):
        file = out / f"drive_{name}.mp4" if side_by_side else None
        try:
            one = speak(subject, name, pathlib.Path(path), landmarker, file)
            driven.append(one)
            lateness.append(frames_late(one.late) if late is None else late)
        except (ValueError, OSError) as error:
            if faults.is_full(error):  # it is not the video's fault
                raise
            left_out[name] = " ".join(str(error).split())
            print(f"drive: {name} is left out: {left_out[name]}", file=sys.stderr)
    if not driven:
        reason = next(iter(left_out.values()), "none is given")
        raise ValueError(f"none of {len(names)} videos can be used ({reason})")
    result = {**collect(driven, lateness), "left_out": left_out}
    result["weights"] = {"drive": landmarker.source}
    report.write_csv(out / "drive.csv", result["videos"])
    if landmarker.call is not None:
        plots.write_png(out / "drive.png", picture(driven, result["videos"]))
    with whole(out / "drive.json") as part:
        part.write_text(json.dumps(result, indent=2))
    return result


def frames_late(measured: av_offset.Offset | None) -> float:
    """Returns the lateness of a sound in frames, 0 where it is not certain."""
    return measured.seconds * clock.FPS if measured is not None and measured.certain else 0.0


def result_folder(
    workdir: os.PathLike[str] | str, out: os.PathLike[str] | str | None
) -> pathlib.Path:
    """Returns the folder that `drive` writes into."""
    return pathlib.Path(out) if out else pathlib.Path(workdir) / "eval_drive"


def load_landmarker() -> OptionalNetwork:
    """Returns MediaPipe's landmarker: call() -> a new `face_landmarker.Tracker`."""
    path = weights.find("face_landmarker")
    if path is None:
        return OptionalNetwork(None, weights.not_found("face_landmarker"))
    try:
        mediapipe_runtime.load()
    except mediapipe_runtime.MediaPipeMissing as error:
        return OptionalNetwork(None, str(error))
    return OptionalNetwork(
        functools.partial(face_landmarker.Tracker, path), "mediapipe face mesh, in the head's frame"
    )


def unique_names(videos: Sequence[os.PathLike[str] | str]) -> list[str]:
    """Returns a name for each video: its file's, with a number where two have the same."""
    names: list[str] = []
    # Also of names that differ in case only, which some file systems take for one.
    taken: set[str] = set()
    for path in videos:
        stem = name = pathlib.Path(path).stem
        number = 1
        while name.lower() in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name.lower())
        names.append(name)
    return names


def speak(
    subject: Subject,
    name: str,
    path: pathlib.Path,
    landmarker: OptionalNetwork,
    file: pathlib.Path | None,
) -> Driven:
    """Lets the avatar speak one video's sound, and follows both pairs of lips frame by frame.

    Args:
      subject: the avatar and its clip.
      name: of the video.
      path: of the video.
      landmarker: see `load_landmarker`.
      file: the side-by-side mp4 to write, None for none.

    Raises:
      ValueError: the video cannot be read, has no sound, or hardly shows a face.
    """
    footage = video.read_video(path, min_frames=ruler.MIN_FRAMES)
    speech = subject.speak(footage.samples, name=path)
    real, drawn = footage.frames(), speech.frames
    trackers = [landmarker.call() for _ in range(2)] if landmarker.call is not None else None
    if trackers is not None:
        real, drawn = trackers[0].watch(real), trackers[1].watch(drawn)
    pairs = zip(real, drawn, strict=True)
    bar = progress(pairs, desc=f"drive {name}", total=footage.num_frames, unit="frame")
    if file is not None:
        video.write_video(file, _side_by_side(bar), footage.samples)
    else:
        deque(bar, maxlen=0)
    truth, render, late = None, None, None
    if trackers is not None:
        truth, render = (curves_of(tracker.track()) for tracker in trackers)
        faces = int(np.isfinite(truth.opening).sum())
        if faces < ruler.MIN_FRAMES:
            if file is not None:
                file.unlink()
            raise ValueError(
                f"{path} shows a face in {faces} of {footage.num_frames} frames; "
                f"expected at least {ruler.MIN_FRAMES}"
            )
        track = trackers[0].track()
        expected = audio_features.expected_lips(footage.samples, footage.num_frames)
        late = av_offset.estimate(track.pixels, track.valid, footage.samples, expected)
    return Driven(name, path, footage.samples, footage.num_frames, truth, render, late)


def collect(driven: Sequence[Driven], late_frames: Sequence[float]) -> dict:
    """Returns the figures for drive.json, in their order.

    Args:
      driven: the videos.
      late_frames: by how many frames the sound of each is known to be late.
    """
    pairs = [(d.truth, d.render) for d in driven if d.truth is not None and d.render is not None]
    if not pairs:
        unknown = dict.fromkeys(ruler.NOTHING.figures())
        rows = [_row(one, unknown) for one in driven]
        return {"videos": rows, "mean": ruler.summary([]), "chance": ruler.chance([])}
    timed = [(*pair, late) for pair, late in zip(pairs, late_frames, strict=True)]
    middle = ruler.median_lag([ruler.compare(*one) for one in timed])
    compared = [ruler.compare(*one, at_lag=middle) for one in timed]
    rows = [_row(one, c.figures()) for one, c in zip(driven, compared, strict=True)]
    return {"videos": rows, "mean": ruler.summary(compared), "chance": ruler.chance(pairs)}


def picture(driven: Sequence[Driven], rows: Sequence[dict[str, Any]]) -> np.ndarray:
    """Returns uint8 [H, W, 3]: each video's three curves, real and rendered, over its sound.

    Args:
      driven: the videos, with their curves.
      rows: their figures, as in drive.json.
    """
    strips = []
    for one, row in zip(driven, rows, strict=True):
        if one.truth is None or one.render is None:
            continue
        curves = []
        lag = report.text(row["lag"])
        for name in lips.CURVES:
            both = {"real": getattr(one.truth, name), "render": getattr(one.render, name)}
            agreement = "-" if row[name] is None else f"{row[name]:.2f}"
            title = f"{one.name}: {name}, eye distances. Correlation {agreement} at lag {lag}"
            curves.append(plots.Strip(title, both))
        valid = np.isfinite(one.truth.opening) & np.isfinite(one.render.opening)
        loudness = openings.envelope(one.samples, one.num_frames)
        strips.append(plots.plot_strips(curves, loudness, valid))
    return np.vstack(strips)


def table(result: dict) -> list[str]:
    """Returns lines for a terminal: the videos, their mean, and chance.

    Args:
      result: what `drive` returned.
    """
    if not result["mean"]["videos"]:
        return [f"driven lips are not measured: {result['weights']['drive']}"]
    mean = {**result["mean"], "lag": result["mean"]["median_lag"], "name": "mean, median lag"}
    rows = [*result["videos"], mean, {**result["chance"], "name": "chance"}]
    width = max(len(row["name"]) for row in rows)
    heads = [f"{head:>{max(len(head), 5)}}" for _, head, _ in COLUMNS]
    lines = ["  ".join([" " * width, *heads])]
    for row in rows:
        cells = [f"{row['name']:{width}}"]
        for (key, _, form), head in zip(COLUMNS, heads, strict=True):
            value = row.get(key)
            if isinstance(value, float) and form.endswith("d"):
                form = ".0f"
            cells.append(f"{'-' if value is None else format(value, form):>{len(head)}}")
        lines.append("  ".join(cells))
    near = f"{result['mean']['near_median_lag']} of {result['mean']['videos']} videos"
    return [*lines, f"{near} have a lag within {ruler.CLOSE} frame of the median"]


def _row(one: Driven, figures: dict) -> dict[str, Any]:
    """What drive.json holds of one video."""
    return {
        "name": one.name,
        "video": str(one.path),
        "seconds": one.num_frames / clock.FPS,
        "face": _share(one.truth),
        "face_rendered": _share(one.render),
        "sound_late_ms": _milliseconds(one.late),
        **figures,
    }


def _milliseconds(late):
    """The lateness of a sound, None where it is not certain."""
    return round(1000 * late.seconds) if late is not None and late.certain else None


def _share(curves: lips.LipCurves | None) -> float | None:
    """The share of frames with a face."""
    return None if curves is None else float(np.isfinite(curves.opening).mean())


def curves_of(track: face_landmarker.FaceTrack) -> lips.LipCurves:
    """Returns the lip curves of all pictures of a track, NaN where there was no face."""
    points = lips.in_head_frame(track.pixels, track.depth, track.rotation)
    curves = lips.lip_curves(points)
    return lips.LipCurves(*(np.where(track.valid, curve, np.nan) for curve in curves))


def _side_by_side(pairs: Any) -> Iterator[np.ndarray]:
    """The real picture, scaled to the height of the drawn one, and that one beside it."""
    for real, drawn in pairs:
        height = drawn.shape[0]
        width = round(real.shape[1] * height / real.shape[0])
        smaller = height <= real.shape[0]
        way = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
        yield np.hstack([cv2.resize(real, (width, height), interpolation=way), drawn])
