"""Judges a video of a talking head: against the recording, or alone by what needs no truth.

Whoever made the video, its figures are computed as those of our own avatars.
"""

import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from fg3dgs_jax.clip import av_offset, lips
from fg3dgs_jax.clip.landmarks import LEFT_EYE, OUTER_LIPS, RIGHT_EYE, boxes_around
from fg3dgs_jax.evaluation import (
    alignment,
    lse,
    measure,
    metrics,
    perception,
    pretrained,
    report,
    temporal,
)
from fg3dgs_jax.evaluation.drive import curves_of, load_landmarker
from fg3dgs_jax.evaluation.pretrained import Networks
from fg3dgs_jax.evaluation.watcher import Measure
from fg3dgs_jax.experts.audio import audio_features
from fg3dgs_jax.experts.face import face_landmarker
from fg3dgs_jax.experts.optional import OptionalNetwork
from fg3dgs_jax.lipsync import openings, ruler
from fg3dgs_jax.media import clock, plots, video
from fg3dgs_jax.media.progress import progress
from fg3dgs_jax.media.whole_files import whole

MIN_FRAMES = 25
SHAPE = 0.01  # by which the ratio of the sides of two pictures may differ
SHOWN = 4  # frames of frames.png that are the worst, and as many that are the best
APART = 10  # frames that lie at least between two of these
LIPS_MARGIN, EYES_MARGIN = 0.25, 0.35  # as the boxes of a clip
PANELS = ("truth", "video", "error x4")


class Part(NamedTuple):
    """Consecutive frames of a video."""

    video: video.Video
    first: int
    count: int

    def frames(self) -> Iterator[np.ndarray]:
        """Yields uint8 [H, W, 3]."""
        return self.video.frames(self.first, self.count)

    @property
    def samples(self) -> np.ndarray:
        """The sound, int16 [count * 640]."""
        step = clock.SAMPLES_PER_FRAME
        return self.video.samples[self.first * step : (self.first + self.count) * step]


class Watched(NamedTuple):
    """What was seen in one pass over a part."""

    track: face_landmarker.FaceTrack | None  # None without the landmarker
    frames: np.ndarray | None  # uint8 [T, H, W, 3]; None where no network asks for them


class Pairing(NamedTuple):
    """Frames of a video and those of the truth that belong to them, one by one."""

    video: Part
    truth: Part
    notes: list[str]  # what was done to bring them together


def judge(
    path: os.PathLike[str] | str,
    truth: os.PathLike[str] | str | None = None,
    *,
    out: os.PathLike[str] | str | None = None,
    lpips_vgg: bool = False,
) -> dict:
    """Measures a video and writes metrics.json, per_frame.csv, report.html, pictures and a video.

    Args:
      path: of the video.
      truth: of the recording that it should look like. Sizes, rates, lengths and offsets may
        differ. None: only what needs no truth is measured.
      out: folder for the results; by default VIDEO_judged beside the video.
      lpips_vgg: also measures LPIPS with VGG-16, which takes seconds a frame on a CPU.

    Returns:
      What metrics.json holds. What could not be measured is None, with the reason in `weights`.

    Raises:
      ValueError: a file that is no video or shorter than a second, or pictures of another shape.
    """
    out = result_folder(path, out)
    footage = _open(pathlib.Path(path))
    if truth is None:
        parts, notes = [Part(footage, 0, footage.num_frames)], list(_told(footage))
    else:
        pairing = pair(footage, _open(pathlib.Path(truth)))
        parts, notes = [pairing.video, pairing.truth], pairing.notes
    for note in notes:
        print(note, file=sys.stderr)
    out.mkdir(parents=True, exist_ok=True)
    # It is written last: where it stands, all other files do.
    (out / "metrics.json").unlink(missing_ok=True)
    lip_sync, landmarker = lse.load(), load_landmarker()
    watched = [_watch(part, landmarker, out if lip_sync.call else None) for part in parts]
    result: dict[str, Any] = {
        "video": str(path),
        "truth": None if truth is None else str(truth),
        "notes": notes,
        "frames": parts[0].count,
    }
    sources: dict[str, str] = {}
    pages = []
    if truth is not None:
        rows, figures, sources = compare(parts[0], parts[1], watched[1].track, out, lpips_vgg)
        result |= figures
        report.write_csv(out / "per_frame.csv", rows)
        result["per_frame"] = "per_frame.csv"
        plots.write_png(out / "frames.png", _best_and_worst(parts, rows))
        pages = [("Worst and best frames", "frames.png", "truth, video and error of eight frames")]
    sync, sources["lse_c"] = _lip_sync(lip_sync, parts, watched)
    figures, strips = look_at_lips(parts, [one.track for one in watched])
    result |= sync | figures
    sources["lips"] = landmarker.source
    if strips is not None:
        plots.write_png(out / "lips.png", strips)
        pages.append(("Sound and lips", "lips.png", "loudness, and curves of the lips"))
    result["weights"] = sources
    film = None if truth is None else "comparison.mp4"
    report.write_html(out / "report.html", result, pages, film)
    with whole(out / "metrics.json") as part:
        part.write_text(json.dumps(result, indent=2))
    return result


def result_folder(path: os.PathLike[str] | str, out: os.PathLike[str] | str | None) -> pathlib.Path:
    """Returns the folder that `judge` writes into."""
    path = pathlib.Path(path)
    return pathlib.Path(out) if out else path.with_name(f"{path.stem}_judged")


def pair(footage: video.Video, truth: video.Video) -> Pairing:
    """Brings a video and the truth together: same size, same moments.

    The sound says which frames belong together. Where the two have not the same sound, both begin
    with their first frames.

    Raises:
      ValueError: pictures of another shape.
    """
    notes = [*_told(footage), *_told(truth)]
    shapes = [one.width / one.height for one in (footage, truth)]
    if abs(shapes[0] / shapes[1] - 1) > SHAPE:
        raise ValueError(
            f"{footage.path} shows {footage.width} x {footage.height} px, {truth.path} "
            f"{truth.width} x {truth.height}; expected the same part of the picture: crop one"
        )
    lag = alignment.between(footage.samples, truth.samples)
    shift = lag.frames if lag.same else 0
    if not lag.same:
        notes.append("the two have not the same sound: both begin with their first frames")
    elif shift:
        notes.append(
            f"frame 0 of {footage.path.name} is frame {shift} of {truth.path.name}, by the sound"
        )
    if lag.same and abs(rest := lag.seconds - shift / clock.FPS) > 0.005:
        notes.append(f"the sounds lie {1000 * rest:+.0f} ms apart, less than half a frame")
    first = max(-shift, 0), max(shift, 0)
    lengths = [one.num_frames - start for one, start in zip((footage, truth), first, strict=True)]
    count = min(lengths)
    if footage.num_frames != truth.num_frames:
        notes.append(f"{count} frames are compared, of {footage.num_frames} and {truth.num_frames}")
    if (footage.height, footage.width) != (truth.height, truth.width):
        notes.append(
            f"{footage.width} x {footage.height} px are scaled to {truth.width} x {truth.height}"
        )
        whole_picture = (0, 0, footage.height, footage.width)
        footage = dataclasses.replace(
            footage, window=whole_picture, height=truth.height, width=truth.width
        )
    return Pairing(Part(footage, first[0], count), Part(truth, first[1], count), notes)


def _open(path):
    """A video with its sound, or with silence where it has none."""
    streams = video.probe_streams(path) if path.is_file() else []
    heard = any(stream.type == "audio" for stream in streams)
    return video.read_video(
        path, min_frames=MIN_FRAMES, audio_track=None if heard else video.SILENT
    )


def _told(footage):
    name = footage.path.name
    if abs(footage.source_fps - clock.FPS) > 0.01:
        yield f"{name} has {footage.source_fps:.2f} frames a second: it is measured at {clock.FPS}"
    if footage.source.track == video.SILENT:
        yield f"{name} has no sound"
    elif not footage.samples.any():
        yield f"{name} has a sound track of digital silence"


def compare(
    footage: Part,
    truth: Part,
    track: face_landmarker.FaceTrack | None,
    out: pathlib.Path,
    lpips_vgg: bool = False,
) -> tuple[list[dict], dict, dict[str, str]]:
    """Measures a video against the truth, frame by frame, and writes comparison.mp4.

    Args:
      footage: frames of the video.
      truth: as many of the truth, of the same size.
      track: faces in the truth, where there is a landmarker.
      out: folder for the video.
      lpips_vgg: also measures LPIPS with VGG-16.

    Returns:
      A row for each frame, the figures of all, and where each of these comes from.
    """
    mesh = pretrained.load_landmarks()
    fan = pretrained.load_fan(lse.load_faces("s3fd"))
    networks = Networks(pretrained.load_lpips(), mesh, fan)
    boxes = _boxes(track, truth.video)
    measures: dict[str, Measure] = {"fid": perception.load_fid()}
    if lpips_vgg:
        measures["lpips_vgg"] = perception.load_lpips_vgg()
    if boxes is not None:
        measures["temporal"] = temporal.TemporalEnergy(np.arange(truth.count), *boxes)
    rows: list[dict] = []

    def panels():
        pairs = zip(truth.frames(), footage.frames(), strict=True)
        for position, pair in enumerate(_bar(pairs, "judge", truth.count)):
            a, b = (picture.astype(np.float32) / 255.0 for picture in pair)
            places = None if boxes is None else (boxes[0][position], boxes[1][position])
            points = [mesh.call(picture) if mesh.call else None for picture in pair]
            figures = measure.compare_frames((a, b), points, places, networks.lpips.call)
            figures["lmd_fan"] = measure.lmd_fan(fan, pair, points[0])
            rows.append({"frame": truth.first + position, **figures})
            for one in measures.values():
                one.add(a, b)
            yield report.comparison_row([*pair, report.error_heat(a, b)], PANELS)

    sound = truth if truth.samples.any() else footage
    try:
        video.write_video(out / "comparison.mp4", panels(), sound.samples)
    finally:
        mesh.close()
    figures = {n: metrics.mean_or_none(r[n] for r in rows) for n in rows[0] if n != "frame"}
    results = {name: one.result() for name, one in measures.items()}
    figures |= {name: value for name, (value, _) in results.items()}
    sources = {"lpips": networks.lpips.source, "lmd": mesh.source, "lmd_fan": fan.source}
    return rows, figures, sources | {name: source for name, (_, source) in results.items()}


def look_at_lips(
    parts: Sequence[Part], tracks: Sequence[face_landmarker.FaceTrack | None]
) -> tuple[dict, np.ndarray | None]:
    """Measures lips: against those of the truth, against the sound, and how still the face is.

    Args:
      parts: the video, and the truth where there is one.
      tracks: the faces of each.

    Returns:
      The figures, all None without a face, and a picture uint8 [H, W, 3] of the curves.
    """
    figures: dict[str, Any] = dict.fromkeys(
        ("face", "jitter", "jitter_truth", "closures_a_second", "closures_a_second_truth")
        + ("sound_late_ms", "expected", "driven")
    )
    known = [t for t in tracks if t is not None and t.valid.sum() >= MIN_FRAMES]
    if len(known) < len(parts):
        return figures, None
    curves = [curves_of(track) for track in known]
    footage, track, own = parts[0], known[0], curves[0]
    figures["face"] = float(track.valid.mean())
    for end, one, curve in zip(("", "_truth"), known, curves, strict=False):
        figures[f"jitter{end}"] = jitter(one)
        shut = len(ruler.shut_runs(curve.opening))
        figures[f"closures_a_second{end}"] = shut * clock.FPS / footage.count
    others = {"truth": curves[1]} if len(parts) == 2 else {}
    sound = next((p.samples for p in parts if p.samples.any()), None)
    if sound is not None:
        figures |= openings.check(measure.fill_gaps(own.opening), sound)
        expected = audio_features.expected_lips(sound, footage.count)
        late = av_offset.estimate(track.pixels, track.valid, sound, expected)
        figures["sound_late_ms"] = round(1000 * late.seconds) if late.certain else None
        if expected is not None:
            heard = lips.LipCurves(*expected.astype(np.float64).T)
            found = ruler.compare(heard, own)
            figures["expected"] = {"lag": found.lag, **found.correlations}
            others["expected"] = heard
    if len(parts) == 2:
        figures["driven"] = ruler.compare(curves[1], own).figures()
    strips = []
    for name in lips.CURVES:
        shown = {"video": getattr(own, name)}
        shown |= {n: _like(getattr(c, name), shown["video"]) for n, c in others.items()}
        strips.append(plots.Strip(f"{name}, eye distances", shown))
    loudness = np.zeros(footage.count) if sound is None else openings.envelope(sound, footage.count)
    return figures, plots.plot_strips(strips, loudness, track.valid)


def jitter(track: face_landmarker.FaceTrack) -> float | None:
    """Returns how much a face trembles, in thousandths of the distance of the eyes' corners.

    The second difference over time of what does not move by itself: the bridge of the nose and the
    corners of the eyes, in the picture. Its root mean square, without the largest twentieth: heads
    do turn quickly at times.
    """
    points = track.pixels[:, lips.STEADY].astype(np.float64)
    scale = np.linalg.norm(points[:, 3] - points[:, 6], axis=-1)
    known = track.valid[2:] & track.valid[1:-1] & track.valid[:-2]
    if known.sum() < MIN_FRAMES:
        return None
    steps = np.linalg.norm(np.diff(points, 2, axis=0).mean(1), axis=-1)
    ratios = np.sort((steps / np.maximum(scale[1:-1], 1e-6))[known])
    return float(1000 * np.sqrt(np.mean(ratios[: -max(len(ratios) // 20, 1)] ** 2)))


def _watch(part, landmarker, folder):
    """A pass over a part: faces, and its frames where SyncNet asks for them."""
    stream: Any = _bar(part.frames(), f"watch {part.video.path.name}", part.count)
    size = part.video.height, part.video.width
    recording = None if folder is None else lse.recording(folder, part.count, *size)
    tracker = landmarker.call() if landmarker.call is not None else None
    if tracker is None and recording is None:
        return Watched(None, None)
    for position, picture in enumerate(stream if tracker is None else tracker.watch(stream)):
        if recording is not None:
            recording[position] = picture
    return Watched(None if tracker is None else tracker.track(), recording)


def _boxes(track, truth):
    """Boxes of the lips [T, 4] and the eyes [T, 2, 4]; None without a face."""
    if track is None or not track.valid.any():
        return None
    seen = np.flatnonzero(track.valid)
    # Where no face was found, the boxes stay where they were.
    nearest = seen[np.clip(np.searchsorted(seen, np.arange(len(track.valid))), 0, len(seen) - 1)]
    pixels, size = track.pixels[nearest], (truth.height, truth.width)
    eyes = [boxes_around(pixels[:, i], *size, EYES_MARGIN) for i in (RIGHT_EYE, LEFT_EYE)]
    return boxes_around(pixels[:, OUTER_LIPS], *size, LIPS_MARGIN), np.stack(eyes, 1)


def _lip_sync(expert, parts, watched):
    """SyncNet's figures of the video, and of the truth where there is one."""
    faces = lse.load_faces("s3fd_syncnet", "s3fd") if expert.call else OptionalNetwork(None, "")
    track = watched[-1].track
    landmarks = track.pixels if track is not None and track.valid.any() else None
    sound = next((p.samples for p in parts if p.samples.any()), parts[0].samples)
    truth = watched[1].frames if len(parts) == 2 else None
    return lse.measure(expert, faces, truth, watched[0].frames, landmarks, sound)


def _best_and_worst(parts, rows):
    """Contact sheet: the frames with the lowest and the highest PSNR."""
    footage, truth = parts
    order = np.argsort([row["psnr"] for row in rows])
    sheet: list[tuple[str, list[np.ndarray]]] = []
    for word, ranked in (("worst", order), ("best", order[::-1])):
        chosen: list[int] = []
        for position in ranked:
            if len(chosen) < SHOWN and all(abs(position - other) > APART for other in chosen):
                chosen.append(int(position))
        for position in chosen:
            pair = [next(p.video.frames(p.first + position, 1)) for p in (truth, footage)]
            a, b = (picture.astype(np.float32) / 255.0 for picture in pair)
            title = f"{word}: {rows[position]['frame']}, {rows[position]['psnr']:.1f} dB"
            sheet.append((title, [*pair, report.error_heat(a, b)]))
    return report.contact_sheet(sheet, PANELS)


def _bar(items, what, total):
    return progress(items, desc=what, total=total, unit="frame")


def _like(curve, other):
    """A curve with the mean and spread of another, so that both have one scale."""
    known = np.isfinite(curve)
    spread = np.std(curve[known]) if known.any() else 0.0
    if spread < 1e-9:
        return curve
    return (curve - np.mean(curve[known])) / spread * np.nanstd(other) + np.nanmean(other)
